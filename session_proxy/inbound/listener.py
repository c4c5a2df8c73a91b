"""Listen, accept clients, and let them finish when it is time to stop."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence

import attrs
import trio

from session_proxy.events import ConnectionClosed, ConnectionOpened, Listening, Notice, Notify
from session_proxy.inbound.client import serve_client
from session_proxy.inbound.departures import open_departures
from session_proxy.inbound.front_door import Dialer, FrontDoor
from session_proxy.inbound.relaying import open_relays
from session_proxy.inbound.sockets import Taken, socket_name, start_listening, take
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.profile.model import Auth, Limits, ListenAddress

# Clients taken from the kernel's queue at once, before those that are being served have their turn.
BATCH = 64

# With no descriptor left, a client cannot even be refused: wait for others to leave, as Trio's listener does.
BREATHER = 0.1


@attrs.frozen(eq=False)
class Entrance:
    """An address on which clients come in; *scope* is the accepting of them."""

    taken: Taken
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False)
class Entrances:
    """Where clients come in through *door*; that may change while it is open."""

    door: FrontDoor
    _connections: trio.Nursery
    _accepting: trio.Nursery
    _open: list[Entrance] = attrs.field(factory=list[Entrance], init=False)

    @property
    def bound(self) -> list[ListenAddress]:
        """The addresses that are listened on, their ports filled in."""
        return [socket_name(sock) for entrance in self._open for sock in entrance.taken.sockets]

    def open(self, taken: Taken) -> None:
        """Let clients in at *taken*, which listens already, and is closed here."""
        entrance = Entrance(taken)
        self._open.append(entrance)
        for sock in taken.sockets:
            self._accepting.start_soon(self._accept, entrance, sock)
            self.door.notify(Listening(str(socket_name(sock))))

    def close(self, address: ListenAddress) -> None:
        """Let nobody in any more at *address*, in a moment; whoever has come by then is served."""
        entrance = next(each for each in self._open if each.taken.address == address)
        self._open.remove(entrance)
        entrance.scope.cancel()

    async def _accept(self, entrance: Entrance, listener: socket.socket) -> None:
        try:
            with entrance.scope:
                while True:
                    await trio.lowlevel.wait_readable(listener)
                    await self._accept_batch(listener)
            # Closing it would reset those who wait in the kernel's queue.
            with contextlib.suppress(OSError):
                while True:
                    self._let_in(*listener.accept())
        finally:
            listener.close()

    async def _accept_batch(self, listener: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                sock, name = listener.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                await _survive(self.door, exc)
                return
            self._let_in(sock, name)

    def _let_in(self, sock: socket.socket, name: tuple[str, int]) -> None:
        door = self.door
        client = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        if door.open_connections >= door.limits.connections:
            _refuse(door, sock, client)
            return
        sock.setblocking(False)
        # Some systems refuse this for a client that has left already; that shows soon enough.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        door.open_connections += 1
        self._connections.start_soon(serve_client, door, PlainSocketStream(sock), client)


def ignore_entrances(_entrances: Entrances) -> None:
    """Leave the front door as it is opened."""


async def serve_front_door(
    dialer: Dialer,
    addresses: Sequence[ListenAddress],
    *,
    auth: Auth | None,
    limits: Limits,
    notify: Notify,
    stop: trio.Event,
    taken: Sequence[Taken] = (),
    on_open: Callable[[Entrances], None] = ignore_entrances,
    task_status: trio.TaskStatus[list[ListenAddress]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept SOCKS5, SOCKS4, SOCKS4a and HTTP clients on *addresses*, and connect them through *dialer*.

    Who has *taken* the addresses already hands them over; they are closed here. Who wants to change something while
    the door is open gets what it takes by *on_open*.

    Starts with the addresses that it listens on, their ports filled in. When *stop* is set it accepts no
    more, and returns when the last client has left, after ``limits.drain`` seconds at most. Cancelling ends
    it, and every connection, at once.

    Clients beyond ``limits.connections`` are closed at once: one that is told can try elsewhere, while the
    kernel's queue would keep it waiting behind connections that may last for hours.

    Raises:
      ListenError: an address cannot be listened on; then none is.

    """
    first = taken or await take(addresses)
    try:
        for each in first:
            start_listening(each.sockets)
        async with open_relays(idle=limits.idle) as relays, open_departures() as departures:
            door = FrontDoor(dialer, auth, limits, notify, relays, departures)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(door.patience.run)
                    entrances = Entrances(door, connections, accepting)
                    for each in first:
                        entrances.open(each)
                    on_open(entrances)
                    task_status.started(entrances.bound)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                door.drain()
                connections.cancel_scope.deadline = trio.current_time() + door.limits.drain
    finally:
        for each in first:
            each.close()


def _refuse(door: FrontDoor, sock: socket.socket, client: str) -> None:
    PlainSocketStream(sock).abort()
    number = door.next_id()
    door.notify(ConnectionOpened(number, client))
    door.notify(
        ConnectionClosed(
            id=number,
            client=client,
            protocol="unknown",
            target=None,
            rule="",
            upstream="",
            sent=0,
            received=0,
            duration=0.0,
            connect_duration=None,
            outcome="limit",
            detail=f"there are {door.limits.connections} connections already (limits.connections)",
        )
    )


async def _survive(door: FrontDoor, exc: OSError) -> None:
    """Go on after a failed accept(2), which may only report what befell one client."""
    if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        door.notify(Notice("", f"cannot accept clients: {exc.strerror}; raise `ulimit -n`", "warning"))
        await trio.sleep(BREATHER)
    elif exc.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK):
        raise exc
