"""What is measured of a relay beyond what is measured of any proxy: by process, by request, by link, by fault."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from benchmarks.arena import Arena, Contestant, FailedError, Load
from benchmarks.measures import BARE, Figure, Figures, Measure, Scale
from benchmarks.processes import Usage
from benchmarks.relay_contestants import RelayContestant
from benchmarks.relay_site import RelaySite

PARTS = ("client", "server", "agent")
STREAMS = 1000
AGENTS = 1000
# How long the server is watched over its restart, at least.
RESTART_WATCH = 8.0
RESTART_AFTER = 1.0


@attrs.frozen
class Library:
    """Clients by the library: how to command them, and their process."""

    site: RelaySite
    load: Load
    pid: int

    @property
    def parts(self) -> dict[str, int]:
        """Which process does what, in the order of `PARTS`."""
        return dict(zip(PARTS, (self.pid, self.site.server, self.site.agent), strict=True))

    async def ask(self, do: str, **command: object) -> dict[str, float]:
        """Have it do something; raises `FailedError`."""
        answer = await self.load.exchange(json.dumps({"do": do, **command}))
        if "error" in answer:
            raise FailedError(f"{do}: {answer['error']}")
        return answer

    @asynccontextmanager
    async def held(self, do: str, count: int) -> AsyncGenerator[dict[str, float]]:
        """Have it hold so many of something for the block."""
        answer = await self.ask(do, count=count)
        try:
            yield answer
        finally:
            with trio.CancelScope(shield=True):
                await self.load.exchange("release")


def used(parts: dict[str, int]) -> dict[str, Usage]:
    """Return what each process has used until now."""
    return {part: Usage.of([pid]) for part, pid in parts.items()}


def spent(before: dict[str, Usage], after: dict[str, Usage], units: float) -> dict[str, float]:
    """Return how many CPU seconds each process has spent, for each of *units*."""
    return {part: (after[part].cpu - before[part].cpu) / units for part in before}


# -- of a proxy


async def _by_process(down: bool, arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    assert isinstance(contestant, RelayContestant)
    transfer = arena.download if down else arena.upload
    probed = await transfer(contestant, scale.probe)
    size = int(min(max(scale.probe / probed * scale.seconds, scale.least), scale.most))
    before = used(dict(contestant.parts))
    await transfer(contestant, size)
    return spent(before, used(dict(contestant.parts)), size / 1e9)


BY_PROCESS = tuple(
    Measure(
        f"one stream {'down' if down else 'up'}, by process",
        tuple(Figure(part, f"CPU s/GB, {part}", digits=2) for part in PARTS),
        partial(_by_process, down),
    )
    for down in (True, False)
)


async def _latency(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    bare = await arena.ping(BARE, scale.pings)
    through = await arena.ping(contestant, scale.pings)
    return {each: max(through[each] - bare[each], 0.0) / 1000 for each in ("p50", "p95")}


LATENCY = Measure(
    "added latency", (Figure("p50", "ms p50", digits=2), Figure("p95", "ms p95", digits=2)), _latency
)


# -- of the library


def of_library(library: Library) -> tuple[Measure, ...]:
    """Return the measures of *library*: requests, streams, set-ups."""
    return (
        _measure(
            "set-up of a tunnel, to the first byte",
            (Figure("p50", "ms p50"), Figure("p95", "ms p95")),
            _setups,
            library,
        ),
        _measure(
            "added latency of a stream",
            (Figure("p50", "ms p50", digits=2), Figure("p95", "ms p95", digits=2)),
            _pings,
            library,
        ),
        _measure("streams opened", (_RATE, *_SPENT), _opens, library),
        _measure(
            "requests", (_RATE, Figure("p95", "ms p95"), *_SPENT), partial(_requests, high=False), library
        ),
        _measure(
            "requests of high priority",
            (_RATE, Figure("p95", "ms p95"), *_SPENT),
            partial(_requests, high=True),
            library,
        ),
    )


def many(library: Library) -> tuple[Measure, ...]:
    """Return what many links and streams take."""
    return (
        _measure(
            "100 clients and 100 agents",
            (Figure("memory", "MB of the server per 100 connections", digits=2),),
            _connections,
            library,
        ),
        _measure(
            "1,000 streams at a time",
            (
                Figure("seconds", "s to open them and hear from each", digits=2),
                *(Figure(f"{part} memory", f"kB of the {part} each", digits=1) for part in PARTS),
            ),
            _streams,
            library,
        ),
        _measure(
            "1,000 agents at a time",
            (
                Figure("seconds", "s until all are linked", digits=1),
                Figure("cpu", "CPU ms of the server each", digits=2),
                Figure("memory", "kB of the server each", digits=1),
            ),
            _agents,
            library,
        ),
    )


def faults(library: Library) -> tuple[Measure, ...]:
    """Return what takes how long when links are lost."""
    cut = (Figure("p50", "ms p50", digits=0), Figure("most", "ms at most", digits=0))
    return (
        _measure("resumed after the client's cut", cut, partial(_resume, who="client"), library),
        _measure("resumed after the agent's cut", cut, partial(_resume, who="agent"), library),
        _measure("server restarted", (Figure("gap", "s of silence", digits=2),), _restart, library),
        attrs.evolve(
            _measure(
                "nothing passes any more",
                tuple(Figure(part, f"s until the {part} knows", digits=1) for part in PARTS),
                _detect,
                library,
            ),
            repeated=False,
        ),
    )


_RATE = Figure("rate", "per s", more=True, digits=0)
_SPENT = tuple(Figure(part, f"CPU µs each, {part}", digits=0) for part in PARTS)

Take = Callable[[Library, Arena, Scale], Awaitable[Figures]]


def _measure(name: str, figures: tuple[Figure, ...], take: Take, library: Library) -> Measure:
    async def taken(arena: Arena, _contestant: Contestant, scale: Scale) -> Figures:
        return await take(library, arena, scale)

    return Measure(name, figures, taken)


async def _setups(library: Library, _arena: Arena, scale: Scale) -> Figures:
    return await library.ask("setups", count=max(scale.pings // 50, 10))


async def _pings(library: Library, arena: Arena, scale: Scale) -> Figures:
    bare = await arena.ping(BARE, scale.pings)
    through = await library.ask("ping", count=scale.pings)
    return {each: max(through[each] - bare[each], 0.0) / 1000 for each in ("p50", "p95")}


async def _opens(library: Library, _arena: Arena, scale: Scale) -> Figures:
    return await _rate(library, "connect_rate", count=scale.connections)


async def _requests(library: Library, _arena: Arena, scale: Scale, *, high: bool) -> Figures:
    return await _rate(library, "requests", count=scale.connections, high=high)


async def _rate(library: Library, do: str, **command: object) -> Figures:
    before = used(library.parts)
    answer = await library.ask(do, **command)
    count = answer["count"]
    costs = spent(before, used(library.parts), count / 1e6)
    return {**answer, **costs, "rate": count / answer["seconds"]}


async def _connections(library: Library, _arena: Arena, scale: Scale) -> Figures:
    each = min(scale.idle, 100)
    for do in ("hold_clients", "hold_agents"):
        async with library.held(do, each // 10):
            pass  # what the first ones make a program load is not what one costs
    before = Usage.of([library.site.server]).memory
    async with library.held("hold_clients", each):
        clients = Usage.of([library.site.server]).memory - before
    before = Usage.of([library.site.server]).memory
    async with library.held("hold_agents", each):
        agents = Usage.of([library.site.server]).memory - before
    return {"memory": (clients + agents) / (2 * each) * 100 / 1e6}


async def _streams(library: Library, _arena: Arena, scale: Scale) -> Figures:
    count = min(scale.idle, STREAMS)
    async with library.held("hold_streams", count // 10):
        pass  # what the first ones make a program load is not what one costs
    before = used(library.parts)
    async with library.held("hold_streams", count) as answer:
        after = used(library.parts)
    memory = {f"{part} memory": (after[part].memory - before[part].memory) / count / 1e3 for part in PARTS}
    return {"seconds": answer["seconds"], **memory}


async def _agents(library: Library, _arena: Arena, scale: Scale) -> Figures:
    count = min(scale.idle, AGENTS)
    server = [library.site.server]
    before = Usage.of(server)
    async with library.held("hold_agents", count) as answer:
        after = Usage.of(server)
    return {
        "seconds": answer["seconds"],
        "cpu": (after.cpu - before.cpu) / count * 1e3,
        "memory": (after.memory - before.memory) / count / 1e3,
    }


async def _resume(library: Library, _arena: Arena, scale: Scale, *, who: str) -> Figures:
    return await library.ask("resume", count=max(scale.pings // 600, 1), who=who)


async def _restart(library: Library, _arena: Arena, _scale: Scale) -> Figures:
    answer: Figures = {}
    failure: FailedError | None = None

    async def watch() -> None:
        nonlocal failure
        try:
            answer.update(await library.ask("gap", seconds=RESTART_WATCH))
        except FailedError as exc:
            failure = exc

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.sleep(RESTART_AFTER)
        await library.site.stop_server()
        await library.site.start_server()
    if failure is not None:
        raise failure
    return answer


async def _detect(library: Library, _arena: Arena, _scale: Scale) -> Figures:
    noticed = await library.ask("detect")
    late = [part for part in PARTS if part not in noticed]
    if late:
        raise FailedError(f"that nothing passes any more, {' and '.join(late)} did not notice")
    return noticed
