"""Listen, accept clients, and let them finish when it is time to stop."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

import trio

from session_proxy.events import ConnectionClosed, ConnectionOpened, Listening, Notice, Notify
from session_proxy.inbound.client import serve_client
from session_proxy.inbound.departures import open_departures
from session_proxy.inbound.front_door import Dialer, FrontDoor
from session_proxy.inbound.relaying import open_relays
from session_proxy.inbound.sockets import bind_sockets, socket_name, start_listening
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.profile.model import Auth, Limits, ListenAddress

# Clients taken from the kernel's queue at once, before those that are being served have their turn.
BATCH = 64

# With no descriptor left, a client cannot even be refused: wait for others to leave, as Trio's listener does.
BREATHER = 0.1


async def serve_front_door(
    dialer: Dialer,
    addresses: Sequence[ListenAddress],
    *,
    auth: Auth | None,
    limits: Limits,
    notify: Notify,
    stop: trio.Event,
    sockets: Sequence[socket.socket] = (),
    task_status: trio.TaskStatus[list[ListenAddress]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept SOCKS5, SOCKS4, SOCKS4a and HTTP clients on *addresses*, and connect them through *dialer*.

    Who has taken the addresses already hands over the *sockets* of `bind_sockets`; they are closed here.

    Starts with the addresses that it listens on, their ports filled in. When *stop* is set it accepts no
    more, and returns when the last client has left, after ``limits.drain`` seconds at most. Cancelling ends
    it, and every connection, at once.

    Clients beyond ``limits.connections`` are closed at once: one that is told can try elsewhere, while the
    kernel's queue would keep it waiting behind connections that may last for hours.

    Raises:
      ListenError: an address cannot be listened on; then none is.

    """
    listeners = sockets or await bind_sockets(addresses)
    try:
        start_listening(listeners)
        async with open_relays(idle=limits.idle) as relays, open_departures() as departures:
            door = FrontDoor(dialer, auth, limits, notify, relays, departures)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(door.patience.run)
                    for listener in listeners:
                        accepting.start_soon(_accept, door, listener, connections)
                    bound = [socket_name(listener) for listener in listeners]
                    for address in bound:
                        notify(Listening(str(address)))
                    task_status.started(bound)
                    await stop.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    listener.close()
                door.drain()
                connections.cancel_scope.deadline = trio.current_time() + limits.drain
    finally:
        for listener in listeners:
            listener.close()


async def _accept(door: FrontDoor, listener: socket.socket, connections: trio.Nursery) -> None:
    while True:
        await trio.lowlevel.wait_readable(listener)
        for _ in range(BATCH):
            try:
                sock, name = listener.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                await _survive(door, exc)
                break
            client = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
            if door.open_connections >= door.limits.connections:
                _refuse(door, sock, client)
                continue
            sock.setblocking(False)
            # Some systems refuse this for a client that has left already; that shows soon enough.
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            door.open_connections += 1
            connections.start_soon(serve_client, door, PlainSocketStream(sock), client)


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
