"""Carry bytes both ways between a client and its destination until both directions have ended.

Two plain sockets take the fast path: their bytes are moved at the level of the operating system, by
`EpollMover` where there is epoll and by `TaskMover` elsewhere. Any other stream takes the general path.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from session_proxy.inbound.epoll_mover import EpollMover, has_epoll
from session_proxy.inbound.idleness import Idleness, Watched
from session_proxy.inbound.movers import Mover, RelayEnd, SocketRelay, TaskMover
from session_proxy.inbound.pipes import PipePool, can_splice
from session_proxy.inbound.pumping import Workshop
from session_proxy.outbound.socket_stream import PlainSocketStream
from tunnel_relay.background import open_background
from tunnel_relay.splicing import SpliceableStream

# A read for the general path: what it carries is framed and encrypted in pieces smaller than this.
GENERAL_READ = 128 * 1024

# Seconds that the answer of a destination may pause which cannot be told that the client has sent everything.
# Mostly the client has left altogether, which looks the same from here: hence not longer.
UNTOLD_LIMIT = 5.0


@attrs.define
class Traffic:
    """Payload bytes that one client has *sent* and *received*; right also where a relay was cut off."""

    sent: int = 0
    received: int = 0

    def count_sent(self, size: int) -> None:
        """Add *size* bytes that the client sent."""
        self.sent += size

    def count_received(self, size: int) -> None:
        """Add *size* bytes that the client received."""
        self.received += size


@attrs.define(eq=False)
class StreamRelay(Watched):
    """A relay whose far side is any stream."""

    near: PlainSocketStream
    far: trio.abc.Stream
    traffic: Traffic
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    end: RelayEnd = RelayEnd.FINISHED

    def progress(self) -> int:
        """Return how many bytes have moved so far, both ways together."""
        return self.traffic.sent + self.traffic.received

    def expire(self) -> None:
        """End: nothing has moved for too long."""
        self.finish(RelayEnd.IDLE)

    def finish(self, end: RelayEnd) -> None:
        """Be over before both directions have ended."""
        self.end = end
        self.scope.cancel()


@attrs.frozen(eq=False)
class Relays:
    """The relays of one front door. Open it with `open_relays`."""

    _mover: Mover
    _workshop: Workshop
    _idleness: Idleness
    _draining: trio.Event = attrs.field(factory=trio.Event, init=False)

    def drain(self) -> None:
        """End the relays that go on only because their destination cannot be told of the end."""
        self._draining.set()

    def limit_idleness(self, idle: float) -> None:
        """End relays that move nothing for *idle* seconds, from now on."""
        self._idleness.limit = idle

    async def relay(self, near: PlainSocketStream, far: trio.abc.Stream, traffic: Traffic) -> RelayEnd:
        """Copy bytes both ways until both directions have ended; count them in *traffic*.

        Each direction ends on its own: an end of file is passed on as a half-close where the other side knows
        one, and the opposite direction goes on; where it knows none, until that falls silent. Closing both
        streams is the caller's job; after any other end than `RelayEnd.FINISHED`, *near* should see a reset,
        since what it got is not all.
        """
        if isinstance(far, PlainSocketStream):
            return await self._relay_sockets(near, far, traffic)
        return await self._relay_streams(StreamRelay(near, far, traffic))

    @contextmanager
    def watched(self, watched: Watched) -> Generator[None]:
        """End *watched*, too, where it is idle for too long inside this block."""
        self._idleness.add(watched)
        try:
            yield
        finally:
            self._idleness.discard(watched)

    async def _relay_sockets(
        self, near: PlainSocketStream, far: PlainSocketStream, traffic: Traffic
    ) -> RelayEnd:
        relay = SocketRelay.between(near.socket, far.socket, self._workshop)
        self._idleness.add(relay)
        try:
            await self._mover.carry(relay)
        finally:
            self._idleness.discard(relay)
            traffic.sent += relay.upward.moved
            traffic.received += relay.downward.moved
        return relay.end or RelayEnd.RESET

    async def _relay_streams(self, relay: StreamRelay) -> RelayEnd:
        self._idleness.add(relay)
        try:
            with relay.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry_up, relay)
                    nursery.start_soon(self._carry_down, relay)
        finally:
            self._idleness.discard(relay)
        return relay.end

    async def _carry_up(self, relay: StreamRelay) -> None:
        near, far, traffic = relay.near, relay.far, relay.traffic
        try:
            if isinstance(far, SpliceableStream):
                await far.soak(near.socket, traffic.count_sent)
            else:
                while data := await self._read(near):
                    await far.send_all(data)
                    traffic.count_sent(len(data))
            if isinstance(far, trio.abc.HalfCloseableStream):
                await far.send_eof()
            else:
                await self._wait_for_silence(traffic)
                relay.finish(RelayEnd.FINISHED)
        except trio.BrokenResourceError:
            relay.finish(RelayEnd.RESET)

    async def _wait_for_silence(self, traffic: Traffic) -> None:
        """Wait until nothing has been received for `UNTOLD_LIMIT` seconds, or it is time to stop."""
        seen = -1
        while seen != traffic.received:
            seen = traffic.received
            with trio.move_on_after(UNTOLD_LIMIT):
                await self._draining.wait()
                return

    async def _read(self, near: PlainSocketStream) -> bytes:
        """Read through the shared buffer, so that a small piece does not hold the memory of a large one."""
        while True:
            try:
                count = near.socket.recv_into(self._workshop.buffer, GENERAL_READ)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(near.socket)
            except OSError as exc:
                raise trio.BrokenResourceError("the client's connection broke") from exc
            else:
                return bytes(self._workshop.view[:count])

    async def _carry_down(self, relay: StreamRelay) -> None:
        near, far, traffic = relay.near, relay.far, relay.traffic
        try:
            if isinstance(far, SpliceableStream):
                await far.pour(near.socket, traffic.count_received)
            else:
                while data := await far.receive_some():
                    await near.send_eagerly(data)
                    traffic.count_received(len(data))
            await near.send_eof()
        except trio.BrokenResourceError:
            relay.finish(RelayEnd.RESET)


@asynccontextmanager
async def open_relays(
    *, idle: float, splice: bool | None = None, epoll: bool | None = None
) -> AsyncGenerator[Relays, None]:
    """Open what relays share, for the length of a block; *idle* seconds without a byte end a relay.

    *splice* and *epoll* say whether to use them; `None` is: where the system has them.
    """
    workshop = Workshop(PipePool() if (can_splice() if splice is None else splice) else None)
    mover: Mover = EpollMover() if (has_epoll() if epoll is None else epoll) else TaskMover()
    idleness = Idleness(idle)
    try:
        async with open_background() as nursery:
            nursery.start_soon(mover.run)
            nursery.start_soon(idleness.run)
            yield Relays(mover, workshop, idleness)
    finally:
        workshop.close()
