"""The lab's SSH server: paramiko as it comes, thread and all, which carries TCP connections to loopback.

Unlike everything else here it runs on threads: one per SSH connection that paramiko starts itself, and two
per channel, because paramiko's channels block. Nothing goes through Trio chunk by chunk.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import attrs
import paramiko
import trio
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_FAILED_RESOURCE_SHORTAGE,
    OPEN_SUCCEEDED,
    cMSG_CHANNEL_OPEN_FAILURE,
)

from session_proxy.lab.authorized_keys import AuthorizedKeys

LOG_CHANNEL = "session_proxy.lab.ssh"
# Large, because paramiko's cost is per packet.
WINDOW = 8 * 1024 * 1024
PACKET = 128 * 1024
READ_SIZE = 128 * 1024
# Two threads each: beyond this the lab is not the place to measure.
MOST_CHANNELS = 1000
# Destinations are on loopback: they answer at once or not at all.
CONNECT_TIME = 5.0
# How long closing may take before threads are left to end by themselves.
CLOSING_TIME = 5.0


# What OpenSSH's sshd says where it has nothing particular to say.
NO_REASON = "open failed"
# SSH_MSG_CHANNEL_OPEN_FAILURE before its texts: its number, the channel's, and the reason's.
_REFUSAL_HEAD = 9

_Opened = Callable[[paramiko.Channel, socket.socket], None]


@attrs.frozen
class SshServer:
    """An SSH server for TCP forwarding: its host key, and who may log in."""

    host_key: paramiko.PKey
    keys: AuthorizedKeys

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one SSH connection until it ends; a handler for `trio.serve_listeners`."""
        # paramiko needs a socket of its own to block on; the stream's is left alone.
        sock = socket.socket(fileno=os.dup(stream.socket.fileno()))
        ended = trio.Event()
        logging.getLogger(LOG_CHANNEL).addHandler(logging.NullHandler())
        server = _Server(self.keys)
        targets: set[socket.socket] = set()
        limiter = trio.CapacityLimiter(2 * MOST_CHANNELS)

        async def carry(channel: paramiko.Channel, target: socket.socket) -> None:
            targets.add(target)
            await _Splice(channel, target).run(limiter)
            targets.remove(target)
            server.room.release()

        async with trio.open_nursery() as nursery:
            transport = _Transport(sock, ended, functools.partial(nursery.start_soon, carry))
            transport.set_log_channel(LOG_CHANNEL)
            transport.add_server_key(self.host_key)
            try:
                transport.start_server(event=threading.Event(), server=server)
                await ended.wait()
            finally:
                for blocked in (sock, *targets):
                    _shut(blocked)
                with trio.move_on_after(CLOSING_TIME, shield=True):
                    await trio.to_thread.run_sync(_end, transport, abandon_on_cancel=True)
                sock.close()


def _shut(sock: socket.socket) -> None:
    # Wakes whoever is blocked on the socket; close() would not.
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _end(transport: paramiko.Transport) -> None:
    transport.close()
    transport.join()


class _Transport(paramiko.Transport):
    """Tells Trio when it has ended and when a channel is open."""

    def __init__(
        self,
        sock: socket.socket,
        ended: trio.Event,
        opened: Callable[[paramiko.Channel, socket.socket], None],
    ) -> None:
        super().__init__(sock, WINDOW, PACKET)
        self._trio = trio.lowlevel.current_trio_token()
        self._ended = ended
        self._opened = opened

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._tell(self._ended.set)

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        # Called by paramiko's thread; its own way, accept(), would need one more thread that polls.
        server = self.server_object
        assert isinstance(server, _Server)
        sock = server.connected.pop(channel.get_id())
        self._tell(functools.partial(self._opened, channel, sock))

    def _send_message(self, data: paramiko.Message) -> None:
        # paramiko leaves the description of a refusal empty; people and programs go by it.
        message = data.asbytes()
        if message.startswith(cMSG_CHANNEL_OPEN_FAILURE):
            server = self.server_object
            assert isinstance(server, _Server)
            data = paramiko.Message()
            data.add_bytes(message[:_REFUSAL_HEAD])
            data.add_string(server.refusal)
            data.add_string("")
            server.refusal = NO_REASON
        self.packetizer.send_message(data)

    def _tell(self, call: Callable[[], object]) -> None:
        with suppress(trio.RunFinishedError):
            self._trio.run_sync_soon(call)


class _Server(paramiko.ServerInterface):
    """What the server allows; called by paramiko's thread."""

    def __init__(self, keys: AuthorizedKeys) -> None:
        self._keys = keys
        self.connected: dict[int, socket.socket] = {}
        self.refusal = NO_REASON
        """What to tell about the channel that is not opened just now."""
        self.room = threading.BoundedSemaphore(MOST_CHANNELS)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        allowed = self._keys.allows(username, key.asbytes(), time.monotonic())
        return AUTH_SUCCESSFUL if allowed else AUTH_FAILED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        host, port = destination
        if not self.room.acquire(blocking=False):
            return OPEN_FAILED_RESOURCE_SHORTAGE
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            allowed = all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)
            sock = socket.create_connection((host, port), CONNECT_TIME) if allowed else None
        except (OSError, UnicodeError) as exc:
            self.room.release()
            self.refusal = _reason(exc)
            return OPEN_FAILED_CONNECT_FAILED
        if sock is None:
            self.room.release()
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connected[chanid] = sock
        return OPEN_SUCCEEDED


def _reason(exc: OSError | UnicodeError) -> str:
    """Return what sshd would say, which is the C library's text for the error."""
    match exc:
        case TimeoutError():
            return os.strerror(errno.ETIMEDOUT)
        case UnicodeError():
            # It is no name that a resolver would be asked for.
            return "Name or service not known"
        case _:
            return exc.strerror or NO_REASON


class _Splice:
    """One channel and its TCP connection: two threads, and who closes what when."""

    def __init__(self, channel: paramiko.Channel, sock: socket.socket) -> None:
        self._channel = channel
        self._sock = sock
        self._client_done = False
        self._target_done = False

    async def run(self, limiter: trio.CapacityLimiter) -> None:
        """Carry bytes both ways until both sides have finished or one has gone."""
        with self._sock:
            async with trio.open_nursery() as nursery:
                for pump in (self._to_target, self._to_client):
                    nursery.start_soon(functools.partial(trio.to_thread.run_sync, pump, limiter=limiter))

    def _to_target(self) -> None:
        with suppress(OSError):
            while data := self._channel.recv(READ_SIZE):
                self._sock.sendall(data)
            if not self._channel.closed:
                self._sock.shutdown(socket.SHUT_WR)
        self._client_done = True
        if self._target_done:
            self._close_channel()
        # The client may close the channel long after its EOF: then the target is to see it.
        self._channel.event.wait()
        _shut(self._sock)

    def _to_client(self) -> None:
        with suppress(OSError):
            while data := self._sock.recv(READ_SIZE):
                self._channel.sendall(data)
        with suppress(OSError, EOFError):
            self._channel.shutdown_write()
        self._target_done = True
        if self._client_done:
            self._close_channel()

    def _close_channel(self) -> None:
        with suppress(OSError, EOFError):
            self._channel.close()
