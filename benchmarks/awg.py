"""The suites for upstreams of kind ``awg``: the device alone, a tunnel on loopback, a tunnel over a far path.

The tunnel is ``sproxy awg-client`` into ``sproxy awg-server``, with aioquic and with the engine of the extra
``fast``. Beside it stand stock aioquic and qh3 under asyncio (no proxy, no session: the bare library), pproxy's QUIC,
and wireguard-go, which carries the kernel's TCP.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import attrs

from awg_obfs.protocol.parameters import parameters_from_mapping
from benchmarks.arena import Arena, Contestant, FailedError
from benchmarks.awg_contestants import Files, Starter, Way, crowd, starters, straight, through_relay
from benchmarks.awg_device import CASES, DeviceFigures, measure_device
from benchmarks.contestants import AbsentError
from benchmarks.measures import CONNECTS, IDLE, LATENCY, MIB, Figure, Measure, Scale, bulk
from benchmarks.netem import open_router, through
from benchmarks.tournament import Outcome, Row, play
from benchmarks.udp_relay import Weather

STREAMS = 50
OURS = ("aioquic", "fast")
# 50 ms there and back, and one datagram of a hundred lost each way.
FAR = Weather(delay=0.025, loss=0.01)

LOOPBACK_NOTES = (
    "aioquic and fast: sproxy awg-client into sproxy awg-server. CPU and memory are those of both ends.",
    "plain: a client and a server of the library, no proxy between them; connections are streams of one connection.",
    "wireguard-go: the kernel's TCP through it; what TCP costs the kernel is not counted, and the device's memory is.",
)
FAR_NOTE = (
    f"{FAR.delay * 2e3:.0f} ms there and back (latency includes them) and {FAR.loss:.0%} loss each way, "
)
BY_KERNEL = "by tc netem in a network namespace between the two ends."
BY_RELAY = "by a relay in user space (benchmarks/udp_relay.py); there is no tc netem: {reason}."


def device(scale: Scale) -> Outcome:
    """Measure the device without a socket; what a datagram costs, and what a second brings."""
    figures: tuple[tuple[str, Figure, Callable[[DeviceFigures], float]], ...] = (
        ("sealing", Figure("seal", "µs", digits=2), lambda f: f.seal),
        ("opening", Figure("open", "µs", digits=2), lambda f: f.open),
        (
            "sealed and opened",
            Figure("both", "per s and core", more=True, digits=0),
            lambda f: f.sealed_and_opened,
        ),
        ("handshake, both sides", Figure("handshake", "µs", digits=0), lambda f: f.handshake),
        ("junk and signature datagrams", Figure("decoys", "µs", digits=1), lambda f: f.decoys),
    )
    measured: dict[str, list[DeviceFigures]] = {name: [] for name in CASES}
    for turn in range(scale.rounds):
        for name, values in CASES.items():
            print(f"  device, round {turn + 1}: {name}", file=sys.stderr, flush=True)
            measured[name].append(measure_device(parameters_from_mapping(values), rounds=1))
    rows = tuple(
        Row(measure, figure, {name: [take(each) for each in taken] for name, taken in measured.items()})
        for measure, figure, take in figures
    )
    *peers, subject = CASES
    notes = (
        "One thread, no socket: datagrams of 1 296 bytes, 32 at a time. The handshake includes its decoys.",
    )
    return Outcome(suite="awg-device", subject=subject, peers=tuple(peers), rows=rows, notes=notes)


async def loopback(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure tunnels on loopback."""
    scale = attrs.evolve(
        scale,
        streams=STREAMS,
        idle=min(scale.idle, 500),
        connections=min(scale.connections, 1600),
        probe=min(scale.probe, 8 * MIB),
        least=min(scale.least, 8 * MIB),
    )
    outcome = await _compete(arena, folder, scale, straight, (*bulk(streams=STREAMS), CONNECTS, LATENCY))
    return attrs.evolve(
        outcome,
        suite="awg-loopback",
        rows=(*outcome.rows, *(_many_of_one(outcome.rows))),
        notes=LOOPBACK_NOTES,
    )


async def sessions(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure what a session costs in memory, at either end: many sessions against one."""
    count = max(scale.idle // 20, 10)
    files = Files.new()
    figures = Figure("server", "kB each"), Figure("client", "kB each")
    values: tuple[dict[str, list[float]], ...] = ({}, {})
    absent: dict[str, str] = {}
    failed: list[str] = []
    for name in OURS:
        try:
            few = await _memory(arena, folder, files, fast=name == "fast", count=1)
            many = await _memory(arena, folder, files, fast=name == "fast", count=count)
        except AbsentError as exc:
            absent[name] = str(exc)
        except FailedError as exc:
            failed.append(str(exc))
        else:
            for side, before, after in zip(values, few, many, strict=True):
                side[name] = [(after - before) / (count - 1) / 1e3]
    rows = tuple(
        Row(f"session, {figure.name}'s memory", figure, side)
        for figure, side in zip(figures, values, strict=True)
    )
    return Outcome(
        suite="awg-sessions",
        subject="aioquic",
        peers=tuple(name for name in OURS[1:] if name in values[0]),
        rows=rows,
        absent=absent,
        failures=tuple(failed),
        notes=(f"{count} idle sessions, each with its QUIC connection, in one server and one sproxy run.",),
    )


async def _memory(arena: Arena, folder: Path, files: Files, *, fast: bool, count: int) -> tuple[int, int]:
    async with crowd(arena, folder, files, fast=fast, count=count) as (server, client):
        return server.usage().memory, client.usage().memory


async def far(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure tunnels over 50 ms and 1 % loss."""
    scale = attrs.evolve(
        scale,
        streams=STREAMS,
        rounds=min(scale.rounds, 2),
        probe=min(scale.probe // 8, MIB),
        least=min(scale.probe // 8, MIB),
        seconds=min(scale.seconds * 3, 4.0),
        pings=min(scale.pings, 40),
        connections=min(scale.connections, 320),
    )
    async with AsyncExitStack() as stack:
        try:
            way: Way = partial(through, await stack.enter_async_context(open_router(FAR)))
            made = BY_KERNEL
        except AbsentError as exc:
            way = partial(through_relay, FAR)
            made = BY_RELAY.format(reason=exc)
        outcome = await _compete(arena, folder, scale, way, (*bulk(streams=STREAMS), CONNECTS, LATENCY))
    return attrs.evolve(outcome, suite="awg-far", notes=(FAR_NOTE + made, *LOOPBACK_NOTES))


async def _compete(
    arena: Arena, folder: Path, scale: Scale, way: Way, measures: Sequence[Measure]
) -> Outcome:
    present: list[Contestant] = []
    absent: dict[str, str] = {}
    failed: list[str] = []
    async with AsyncExitStack() as stack:
        for name, start in starters(Files.new()).items():
            try:
                present.append(await _enter(stack, start, arena, folder, way))
            except AbsentError as exc:
                absent[name] = str(exc)
            except FailedError as exc:
                failed.append(str(exc))
        ours = [contestant for contestant in present if contestant.name in OURS]
        # Memory comes first (benchmarks.measures), and is asked of tunnels only.
        idle, failures = await play(arena, ours, [IDLE], scale) if ours else ((), ())
        rows, more_failures = await play(arena, present, measures, scale)
    return Outcome(
        suite="",
        subject="aioquic",
        peers=tuple(contestant.name for contestant in present if contestant.name != "aioquic"),
        rows=(*idle, *rows),
        absent=absent,
        failures=(*failed, *failures, *more_failures),
    )


async def _enter(stack: AsyncExitStack, start: Starter, arena: Arena, folder: Path, way: Way) -> Contestant:
    return await stack.enter_async_context(start(arena, folder, way))


def _many_of_one(rows: Sequence[Row]) -> list[Row]:
    """Return how much of one stream's rate many streams reach together."""
    by_name = {row.figure.name: row for row in rows}
    if not {"down", "many"} <= by_name.keys():
        return []
    one, many = by_name["down"], by_name["many"]
    shares = {
        name: [m / o for m, o in zip(values, one.values[name], strict=False)]
        for name, values in many.values.items()
    }
    return [Row(f"{STREAMS} streams", Figure("share", "of one stream", more=True, digits=2), shares)]
