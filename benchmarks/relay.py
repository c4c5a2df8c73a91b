"""The suites of the relay: as a proxy among others, with many links and streams, and when links are lost.

Each has a relay server with TLS, an agent, and an sshd that it offers. Clients are ``sproxy run``, whose SSH goes
through all of that, and programs that use the library (`benchmarks.relay_client`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs

from benchmarks import relay_measures
from benchmarks.arena import Arena, Contestant
from benchmarks.contestants import AbsentError, Start
from benchmarks.measures import CONNECTS, IDLE, MIB, Measure, Scale, bulk
from benchmarks.relay_contestants import MODES, STARTS, RelayContestant, ours
from benchmarks.relay_measures import BY_PROCESS, LATENCY, Library
from benchmarks.relay_site import RelaySite, open_library, open_site
from benchmarks.suites import enter
from benchmarks.tournament import Outcome, Row, play

SUBJECT = "sproxy"
NOTE = (
    "sproxy and relay-ssh: client, server and agent, with TLS, an audit log, and no limit in the way. "
    "ssh -D: the client, straight to the same sshd. CPU and memory are without the sshd's."
)


def scaled(scale: Scale) -> Scale:
    """Return how much of everything is for a relay."""
    quick = scale.rounds == 1 and scale.pings < Scale().pings
    return attrs.evolve(scale, streams=50, most=1024 * MIB, probe=4 * MIB if quick else 16 * MIB)


async def proxying(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure ``sproxy run`` through the relay, in both modes, beside others' ways to the same sshd."""
    scale = scaled(scale)
    measures = (IDLE, *bulk(streams=scale.streams), CONNECTS, LATENCY)
    async with AsyncExitStack() as stack:
        try:
            site = await stack.enter_async_context(open_site(folder, arena.targets))
        except AbsentError as exc:
            return _nothing("relay-proxy", exc)
        starts: dict[str, Callable[[], Start]] = {name: partial(ours, arena, site, name) for name in MODES}
        starts |= {name: partial(start, arena, site) for name, start in STARTS.items()}
        present, absent, failed = await enter(stack, starts)
        rows, failures = await play(arena, present, measures, scale)
        mine = [each for each in present if isinstance(each, RelayContestant)]
        more, more_failures = await play(arena, mine, BY_PROCESS, scale)
    return Outcome(
        suite="relay-proxy",
        subject=SUBJECT,
        peers=tuple(each.name for each in present if each.name != SUBJECT),
        rows=(*rows, *more),
        absent=absent,
        failures=(*failed, *failures, *more_failures),
        notes=(NOTE,),
    )


async def using(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure requests, streams and set-ups of a client by the library."""
    return await _library("relay-library", relay_measures.of_library, arena, folder, scale)


async def many(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure what many links and streams take."""
    return await _library("relay-many", relay_measures.many, arena, folder, scale)


async def faults(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure how long it takes until a link's loss is known, and until its streams go on."""
    return await _library("relay-faults", relay_measures.faults, arena, folder, scale)


async def _library(
    suite: str, measures: Callable[[Library], Sequence[Measure]], arena: Arena, folder: Path, scale: Scale
) -> Outcome:
    scale = scaled(scale)
    rows: tuple[Row, ...]
    try:
        async with open_site(folder, arena.targets) as site, _open_library(site) as library:
            rows, failures = await play(arena, [Contestant(SUBJECT, None)], measures(library), scale)
    except AbsentError as exc:
        return _nothing(suite, exc)
    return Outcome(suite=suite, subject=SUBJECT, peers=(), rows=rows, failures=failures)


@asynccontextmanager
async def _open_library(site: RelaySite) -> AsyncGenerator[Library]:
    async with open_library(site) as (load, pid):
        library = Library(site, load, pid)
        # The agent is there then, and all have loaded what they need.
        await library.ask("setups", count=2)
        yield library


def _nothing(suite: str, exc: AbsentError) -> Outcome:
    return Outcome(suite=suite, subject=SUBJECT, peers=(), rows=(), absent={"sshd": str(exc)})
