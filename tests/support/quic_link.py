"""Two ends of a QUIC connection over a link in memory that loses, delays, reorders and duplicates by a seed."""

from __future__ import annotations

import heapq
import importlib.util
import itertools
import math
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from awg_obfs.background import open_background
from awg_obfs.quic.certificate import generate_certificate
from awg_obfs.quic.driver import QuicConnection, open_quic
from awg_obfs.quic.engine import Role
from awg_obfs.quic.settings import EngineKind, QuicSettings

# One for all: making it is the slow part, and nobody looks at it.
CERTIFICATE = generate_certificate()

needs_qh3 = pytest.mark.skipif(importlib.util.find_spec("qh3") is None, reason="qh3 is not installed")

ENGINES = (EngineKind.AIOQUIC, EngineKind.AIOQUIC_FAST, pytest.param(EngineKind.QH3, marks=needs_qh3))

# Seconds, virtual ones as a rule.
LONGEST = 300.0

Pair = tuple[EngineKind, EngineKind]

# Each engine with itself, and with the others on either side.
PAIRS = (
    (EngineKind.AIOQUIC, EngineKind.AIOQUIC),
    (EngineKind.AIOQUIC, EngineKind.AIOQUIC_FAST),
    (EngineKind.AIOQUIC_FAST, EngineKind.AIOQUIC),
    (EngineKind.AIOQUIC_FAST, EngineKind.AIOQUIC_FAST),
    pytest.param((EngineKind.QH3, EngineKind.QH3), marks=needs_qh3),
    pytest.param((EngineKind.QH3, EngineKind.AIOQUIC_FAST), marks=needs_qh3),
    pytest.param((EngineKind.AIOQUIC_FAST, EngineKind.QH3), marks=needs_qh3),
    pytest.param((EngineKind.AIOQUIC, EngineKind.QH3), marks=needs_qh3),
)


@attrs.define(eq=False, kw_only=True)
class Weather:
    """What becomes of the datagrams of one direction: probabilities, and seconds. Change it at any time."""

    loss: float = 0.0
    duplicates: float = 0.0
    reordered: float = 0.0
    late: float = 0.03
    delay: float = 0.005
    rate: float = math.inf
    """Bytes per second; what finds more than *queue* bytes waiting is lost."""
    queue: float = math.inf
    down: bool = False


@attrs.define(eq=False)
class LinkEnd:
    """One direction: a `DatagramPath` that delivers to *receive* after a while."""

    weather: Weather
    rng: random.Random
    max_datagram_size: int = 1350
    round_trip: float | None = None
    receive: Callable[[Sequence[bytes]], None] | None = None
    sent: list[bytes] = attrs.field(factory=list[bytes])
    _waiting: list[tuple[float, int, bytes]] = attrs.field(factory=list[tuple[float, int, bytes]])
    _count: itertools.count[int] = attrs.field(factory=itertools.count)
    _poked: trio.Event = attrs.field(factory=trio.Event)
    _free_at: float = 0.0
    _doomed: int = 0

    def lose_next(self, count: int) -> None:
        """Lose the next *count* datagrams."""
        self._doomed = count

    def send(self, datagrams: Sequence[bytes]) -> None:
        """See `DatagramPath.send`."""
        weather, rng = self.weather, self.rng
        now = trio.current_time()
        for datagram in datagrams:
            self.sent.append(datagram)
            self._free_at = max(self._free_at, now)
            if self._doomed:
                self._doomed -= 1
                continue
            if weather.down or (self._free_at - now) * weather.rate > weather.queue:
                continue
            self._free_at += len(datagram) / weather.rate
            if rng.random() < weather.loss:
                continue
            for _ in range(2 if rng.random() < weather.duplicates else 1):
                late = weather.late if rng.random() < weather.reordered else 0.0
                at = self._free_at + weather.delay + late
                heapq.heappush(self._waiting, (at, next(self._count), datagram))
        self._poked.set()

    async def run(self) -> None:
        """Deliver."""
        while True:
            self._poked = trio.Event()
            with trio.move_on_at(self._waiting[0][0] if self._waiting else math.inf):
                await self._poked.wait()
            arrived: list[bytes] = []
            while self._waiting and self._waiting[0][0] <= trio.current_time():
                arrived.append(heapq.heappop(self._waiting)[2])
            if arrived and self.receive is not None:
                self.receive(arrived)


@attrs.frozen
class Couple:
    """A client and a server, and the link between them."""

    client: QuicConnection
    server: QuicConnection
    up: LinkEnd
    down: LinkEnd
    silences: list[bool]
    """What the client was told of the path: True when it went silent, False when it came back."""

    def black_out(self, dark: bool) -> None:
        """Let nothing through either way, or everything again."""
        self.up.weather.down = self.down.weather.down = dark


@asynccontextmanager
async def open_couple(
    engines: tuple[EngineKind, EngineKind] = (EngineKind.AIOQUIC_FAST, EngineKind.AIOQUIC_FAST),
    *,
    weather: Callable[[], Weather] = Weather,
    settings: QuicSettings | None = None,
    seed: int = 1,
    ready: bool = True,
) -> AsyncGenerator[Couple]:
    """Connect a client and a server for the block; *engines* are theirs in that order.

    The block fails when it takes more than `LONGEST`: who waits for what never comes would do so for ever in virtual
    time, in which probes keep both ends busy.
    """
    rng = random.Random(seed)
    up, down = LinkEnd(weather(), rng), LinkEnd(weather(), rng)
    base = settings or QuicSettings()
    silences: list[bool] = []
    with trio.fail_after(LONGEST):
        async with (
            open_background() as nursery,
            open_quic(
                Role.SERVER, down, settings=attrs.evolve(base, engine=engines[1]), certificate=CERTIFICATE
            ) as server,
            open_quic(
                Role.CLIENT, up, settings=attrs.evolve(base, engine=engines[0]), on_silence=silences.append
            ) as client,
        ):
            up.receive, down.receive = server.received, client.received
            nursery.start_soon(up.run)
            nursery.start_soon(down.run)
            if ready:
                await client.wait_ready()
                await server.wait_ready()
            yield Couple(client, server, up, down, silences)
