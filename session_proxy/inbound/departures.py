"""Notice clients that leave while their destination is being reached, so that nobody goes on for them.

Theory: a client that leaves sends FIN, and so does one that only has no more to say: both look the same. But a
client that has sent nothing for its destination yet can hardly wait for an answer of it, so that an end of file with
nothing before it is a departure. Where something came before, as the request that is to be forwarded, the caller
says for how long it may be none. (nginx and Squid take any end of file for a departure.) A reset always is one.

Most destinations are reached before there is anything to notice, so that beginning to watch must cost next to
nothing: `EpollDepartures` tells epoll of the socket, `SweptDepartures` does it anywhere and looks now and then.
"""

from __future__ import annotations

import math
import select
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import attrs
import trio

from session_proxy.inbound.epoll_mover import has_epoll
from session_proxy.outbound.socket_stream import PlainSocketStream
from tunnel_relay.background import open_background

# Seconds between two looks at the same client, where the system cannot tell of its departure.
PAUSE = 0.5

# Events taken from epoll at once.
EVENTS = 64


@attrs.frozen(eq=False)
class Waiter:
    """A client on *sock*; *scope* is what is done for it, and goes on for *grace* seconds behind an end of file."""

    sock: socket.socket
    scope: trio.CancelScope
    grace: float

    def look(self) -> None:
        """End what is done for the client, at once or later, where it seems to have left."""
        try:
            if self.sock.recv(1, socket.MSG_PEEK):
                return
        except BlockingIOError:
            return
        except OSError:
            self.scope.cancel()
        else:
            self.scope.deadline = min(self.scope.deadline, trio.current_time() + self.grace)


class Departures(Protocol):
    """Who waits, and what notices that they no longer do."""

    def begin(self, waiter: Waiter) -> None:
        """Watch *waiter*, until `end`."""
        ...

    def end(self, waiter: Waiter) -> None:
        """Watch *waiter* no more."""
        ...

    async def run(self) -> None:
        """Cancel the scopes of those who leave, for ever."""
        ...

    def close(self) -> None:
        """Release what this holds; nobody waits any more."""
        ...


@attrs.define(eq=False)
class EpollDepartures:
    """Is told at once of a departure. What a client sends meanwhile is left where it is, and wakes nobody."""

    _epoll: select.epoll = attrs.field(factory=select.epoll, init=False)
    _waiters: dict[int, Waiter] = attrs.field(factory=dict[int, Waiter], init=False)

    def begin(self, waiter: Waiter) -> None:
        """Watch *waiter*, until `end`."""
        descriptor = waiter.sock.fileno()
        self._waiters[descriptor] = waiter
        try:
            # Resets are always told of.
            end_of_file = 0 if waiter.grace == math.inf else select.EPOLLRDHUP
            self._epoll.register(descriptor, select.EPOLLONESHOT | end_of_file)
        except OSError:
            # No more watches (/proc/sys/fs/epoll/max_user_watches): its departure goes unnoticed.
            del self._waiters[descriptor]

    def end(self, waiter: Waiter) -> None:
        """Watch *waiter* no more."""
        descriptor = waiter.sock.fileno()
        if self._waiters.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Cancel the scopes of those who leave, for ever."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for descriptor, mask in self._epoll.poll(0, EVENTS):
                waiter = self._waiters[descriptor]
                if mask & (select.EPOLLHUP | select.EPOLLERR):
                    waiter.scope.cancel()
                else:
                    waiter.look()
                    # The end of file is told of once; from now on only a reset is news.
                    self._epoll.modify(descriptor, select.EPOLLONESHOT)

    def close(self) -> None:
        """Release what this holds; nobody waits any more."""
        self._epoll.close()


@attrs.define(eq=False)
class SweptDepartures:
    """Looks at everybody now and then. A reset behind bytes that nobody has read goes unnoticed."""

    _waiters: set[Waiter] = attrs.field(factory=set[Waiter], init=False)

    def begin(self, waiter: Waiter) -> None:
        """Watch *waiter*, until `end`."""
        self._waiters.add(waiter)

    def end(self, waiter: Waiter) -> None:
        """Watch *waiter* no more."""
        self._waiters.remove(waiter)

    async def run(self) -> None:
        """Cancel the scopes of those who leave, for ever."""
        while True:
            await trio.sleep(PAUSE)
            for waiter in self._waiters:
                waiter.look()

    def close(self) -> None:
        """Do nothing: this holds nothing."""


@contextmanager
def ended_by_departure(departures: Departures, near: PlainSocketStream, *, grace: float) -> Generator[None]:
    """Cancel the block when the client on *near* leaves; nothing may be read from it meanwhile.

    Behind an end of file that nothing unread precedes it goes on for *grace* seconds.
    """
    with trio.CancelScope() as scope:
        waiter = Waiter(near.socket, scope, grace)
        departures.begin(waiter)
        try:
            yield
        finally:
            departures.end(waiter)


@asynccontextmanager
async def open_departures(*, epoll: bool | None = None) -> AsyncGenerator[Departures, None]:
    """Notice departures for the length of a block; *epoll* says whether by it, `None`: where the system has it."""
    departures: Departures = (
        EpollDepartures() if (has_epoll() if epoll is None else epoll) else SweptDepartures()
    )
    try:
        async with open_background() as nursery:
            nursery.start_soon(departures.run)
            yield departures
    finally:
        departures.close()
