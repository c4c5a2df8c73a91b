"""What is measured of a contestant: each measure gives one or more named figures per round."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from benchmarks.arena import Arena, Contestant

MIB = 1 << 20
Figures = dict[str, float]


@attrs.frozen(kw_only=True)
class Scale:
    """How much of everything: *seconds* a bulk transfer should take, how many pings, connections, idlers.

    *probe* bytes are moved first, every byte compared, to see how fast a contestant is; at least *least* and
    at most *most* bytes are then moved against the clock.
    """

    rounds: int = 5
    seconds: float = 1.5
    probe: int = 32 * MIB
    least: int = 32 * MIB
    most: int = 8192 * MIB
    streams: int = 100
    pings: int = 2000
    connections: int = 3200
    idle: int = 1000


QUICK = Scale(rounds=1, seconds=0.3, probe=4 * MIB, least=4 * MIB, pings=200, connections=320, idle=200)


@attrs.frozen
class Figure:
    """A figure's *name* and *unit*; *more* says that more of it is better, *digits* how to print it."""

    name: str
    unit: str
    more: bool = False
    digits: int = 1


@attrs.frozen
class Measure:
    """A named way to measure; *repeated* ones run in every round, others once."""

    name: str
    figures: tuple[Figure, ...]
    take: Callable[[Arena, Contestant, Scale], Awaitable[Figures]]
    repeated: bool = True


# What a round trip costs anyway: from the load generator to the target, and back.
BARE = Contestant("no proxy", None)

Transfer = Callable[..., Awaitable[float]]


async def _bulk(transfer: Transfer, contestant: Contestant, scale: Scale, streams: int) -> Figures:
    probed = await transfer(contestant, scale.probe, streams, checked=True)
    size = int(min(max(scale.probe / probed * scale.seconds, scale.least), scale.most))
    before = contestant.usage()
    seconds = await transfer(contestant, size, streams)
    cpu = contestant.usage().cpu - before.cpu
    return {"rate": size / seconds / 1e6, "cpu": cpu / (size / 1e9)}


async def _down(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    figures = await _bulk(arena.download, contestant, scale, 1)
    return {"down": figures["rate"], "down-cpu": figures["cpu"]}


async def _up(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    figures = await _bulk(arena.upload, contestant, scale, 1)
    return {"up": figures["rate"], "up-cpu": figures["cpu"]}


async def _many(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    figures = await _bulk(arena.download, contestant, scale, scale.streams)
    return {"many": figures["rate"]}


async def _latency(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    bare = await arena.ping(BARE, scale.pings)
    through = await arena.ping(contestant, scale.pings)
    return {percentile: max(through[percentile] - bare[percentile], 0.0) for percentile in ("p50", "p99")}


async def _connects(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    return {"connects": await arena.connect_rate(contestant, scale.connections)}


async def _idle(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    async with arena.held(contestant, scale.idle // 10):
        pass  # what the first connections make a program load is not what a connection costs
    before = contestant.usage()
    async with arena.held(contestant, scale.idle):
        after = contestant.usage()
    return {"idle": (after.memory - before.memory) / scale.idle / 1e3}


def bulk(*, streams: int = 100) -> tuple[Measure, ...]:
    """Return the measures of throughput: one stream each way, many at once."""
    return (
        Measure(
            "one stream down",
            (Figure("down", "MB/s", more=True, digits=0), Figure("down-cpu", "CPU s/GB", digits=2)),
            _down,
        ),
        Measure(
            "one stream up",
            (Figure("up", "MB/s", more=True, digits=0), Figure("up-cpu", "CPU s/GB", digits=2)),
            _up,
        ),
        Measure(f"{streams} streams down", (Figure("many", "MB/s", more=True, digits=0),), _many),
    )


# Memory comes first: later it would be hidden in what a busy allocator has kept.
IDLE = Measure("idle connections", (Figure("idle", "kB each"),), _idle, repeated=False)
CONNECTS = Measure("connection rate", (Figure("connects", "per s", more=True, digits=0),), _connects)
LATENCY = Measure(
    "added latency", (Figure("p50", "µs p50", digits=0), Figure("p99", "µs p99", digits=0)), _latency
)
