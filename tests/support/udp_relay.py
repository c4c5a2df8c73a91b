"""A UDP relay on loopback that does to datagrams what networks do: loses, delays, reorders, duplicates them.

Clients send to `UdpRelay.address`. Each has a socket of its own towards the target, as behind a NAT: so the target
sees as many addresses as there are clients, and `UdpRelay.rebind` has them all come from other ones.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from awg_obfs.background import open_background
from awg_obfs.protocol.address import Address
from awg_obfs.udp import UdpSocket

LOOPBACK: Address = ("127.0.0.1", 0)


@attrs.define(eq=False, kw_only=True)
class Faults:
    """What becomes of the datagrams of one direction; change it at any time.

    *loss*, *duplicates* and *reordered* are probabilities; a reordered datagram comes *late* seconds after the
    others, all of which take *delay* seconds. Longer ones than *mtu* bytes are lost, and in a *blackout* all are.
    """

    loss: float = 0.0
    duplicates: float = 0.0
    reordered: float = 0.0
    late: float = 0.02
    delay: float = 0.0
    mtu: int = 65535
    blackout: bool = False
    spared: Callable[[bytes], bool] = lambda _datagram: False
    """Which datagrams nothing happens to."""

    carried: int = attrs.field(default=0, init=False)
    lost: int = attrs.field(default=0, init=False)

    def fates(self, datagram: bytes, rng: random.Random) -> list[float]:
        """Return after how many seconds each copy of *datagram* arrives."""
        if self.spared(datagram):
            return [self.delay]
        if self.blackout or len(datagram) > self.mtu or rng.random() < self.loss:
            self.lost += 1
            return []
        self.carried += 1
        copies = 2 if rng.random() < self.duplicates else 1
        return [self.delay + (self.late if rng.random() < self.reordered else 0.0) for _ in range(copies)]


@attrs.frozen
class Seen:
    """A datagram that came to the relay."""

    when: float
    upwards: bool
    client: Address
    datagram: bytes = attrs.field(repr=lambda datagram: f"<{len(datagram)} bytes>")


class UdpRelay:
    """Made by `open_udp_relay`. *up* is towards *target*, which may be changed, and *down* towards the clients."""

    def __init__(self, target: Address, near: UdpSocket, nursery: trio.Nursery, rng: random.Random) -> None:
        self.target = target
        self.up = Faults()
        self.down = Faults()
        self.seen: list[Seen] | None = None
        """What came, in order, for those who set it to a list."""
        self._near = near
        self._nursery = nursery
        self._rng = rng
        self._far: dict[Address, UdpSocket] = {}
        self._order = itertools.count()
        self._flying: list[tuple[float, int, UdpSocket, Address, bytes]] = []
        self._alarm = trio.CancelScope()

    @property
    def address(self) -> Address:
        """Where clients send to."""
        return self._near.address

    @property
    def sources(self) -> list[Address]:
        """The addresses that the target sees."""
        return [sock.address for sock in self._far.values()]

    def blackout(self, on: bool = True) -> None:
        """Lose everything, both ways; or nothing more than before."""
        self.up.blackout = self.down.blackout = on

    def rebind(self) -> None:
        """Forget the clients, as a NAT that restarts: what they send next comes from other addresses."""
        for sock in self._far.values():
            sock.close()
        self._far.clear()

    def close(self) -> None:
        """Give the sockets back."""
        self.rebind()
        self._near.close()

    async def carry_up(self) -> None:
        """Take what clients send; for ever."""
        while True:
            try:
                await self._near.wait_readable()
            except trio.ClosedResourceError:
                return
            for client, datagrams in self._near.receive_batch():
                far = self._far.get(client)
                if far is None:
                    far = self._far[client] = UdpSocket((LOOPBACK[0], 0))
                    self._nursery.start_soon(self._carry_down, far, client)
                for datagram in datagrams:
                    self._carry(self.up, far, self.target, bytes(datagram), client)

    async def _carry_down(self, far: UdpSocket, client: Address) -> None:
        while True:
            try:
                await far.wait_readable()
            except trio.ClosedResourceError:
                return
            for _, datagrams in far.receive_batch():
                for datagram in datagrams:
                    self._carry(self.down, self._near, client, bytes(datagram), client)

    def _carry(
        self, faults: Faults, sock: UdpSocket, address: Address, datagram: bytes, client: Address
    ) -> None:
        now = trio.current_time()
        if self.seen is not None:
            self.seen.append(Seen(now, faults is self.up, client, datagram))
        for delay in faults.fates(datagram, self._rng):
            if delay:
                heapq.heappush(self._flying, (now + delay, next(self._order), sock, address, datagram))
                self._alarm.deadline = min(self._alarm.deadline, now + delay)
            else:
                sock.send(address, [datagram])

    async def deliver_delayed(self) -> None:
        """Let those arrive that take their time; for ever."""
        while True:
            due = self._flying[0][0] if self._flying else math.inf
            with trio.CancelScope(deadline=due) as self._alarm:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._flying and self._flying[0][0] <= now:
                _, _, sock, address, datagram = heapq.heappop(self._flying)
                if not sock.closed:
                    sock.send(address, [datagram])


@asynccontextmanager
async def open_udp_relay(target: Address, *, seed: int = 1) -> AsyncGenerator[UdpRelay]:
    """Relay to *target* while the block lasts. Chances are drawn by *seed*."""
    near = UdpSocket(LOOPBACK)
    async with open_background() as nursery:
        relay = UdpRelay(target, near, nursery, random.Random(seed))
        try:
            nursery.start_soon(relay.deliver_delayed)
            nursery.start_soon(relay.carry_up)
            yield relay
        finally:
            relay.close()
