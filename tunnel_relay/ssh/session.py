"""An SSH session over any Trio stream: paramiko's algorithms, without its thread.

Three tasks serve a session: one reads, one writes, one watches whether the peer is alive. Everything else happens
in the tasks that use it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from tunnel_relay.background import open_background
from tunnel_relay.errors import SshDisconnectedError, SshError, SshHandshakeError
from tunnel_relay.protocol.ssh_fields import clean_text
from tunnel_relay.ssh.algorithms import host_key_algorithms
from tunnel_relay.ssh.authentication import authenticate
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.connection import Connection
from tunnel_relay.ssh.hostkeys import HostKey, HostKeyPolicy
from tunnel_relay.ssh.keys import Identity
from tunnel_relay.ssh.settings import SshSettings
from tunnel_relay.ssh.wire import Wire, open_wire

# How long the farewell may take: the peer hears it or learns of the closed stream.
GOODBYE = 1.0


@attrs.frozen(kw_only=True)
class SshStatistics:
    """What a session is doing: open channels, bytes that wait to be sent, the shortest round trip in seconds."""

    channels: int
    unsent: int
    round_trip: float


@attrs.frozen(kw_only=True)
class SshSession:
    """A logged-in SSH session. Make one with `open_ssh_session`.

    Attributes:
      host_key: The key that the server proved to own.
      host_key_is_new: It was not known before, and has been recorded.
      banner: What the server told people before they logged in.

    """

    _connection: Connection = attrs.field(repr=False, alias="connection")
    host_key: HostKey
    host_key_is_new: bool
    banner: str

    async def open_direct_tcpip(self, host: str, port: int) -> SshChannel:
        """Let the server connect to *host* and *port*; the stream that comes back can be half-closed.

        Raises:
          ChannelRefusedError: the server could not connect, or would not; its code says which.
          SshDisconnectedError: the session has ended.

        """
        connection = self._connection
        if connection.failure is not None:
            raise SshDisconnectedError(str(connection.failure)) from connection.failure
        channel = connection.open_direct_tcpip(host, port)
        try:
            await channel.wait_open()
        except trio.Cancelled:
            channel.close()
            raise
        return channel

    async def ping(self) -> float:
        """Ask the server for a sign of life; return the round trip in seconds.

        Raises:
          SshDisconnectedError: the session has ended.

        """
        started = trio.current_time()
        answered = self._connection.ping()
        await answered.wait()
        if (failure := self._connection.failure) is not None:
            raise SshDisconnectedError(str(failure)) from failure
        elapsed = trio.current_time() - started
        self._connection.measured(elapsed)
        return elapsed

    async def wait_closed(self) -> None:
        """Wait until the session has ended; `close_reason` says why."""
        await self._connection.ended.wait()

    @property
    def close_reason(self) -> SshError | None:
        """Why the session ended, once it has."""
        return self._connection.failure

    @property
    def channels(self) -> int:
        """How many channels are open or being opened."""
        return len(self._connection.channels)

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._connection.unsent

    @property
    def kex(self) -> str:
        """The method of key exchange."""
        return self._connection.negotiation.kex_name

    @property
    def cipher(self) -> str:
        """The cipher of what we send."""
        return self._connection.negotiation.local_cipher

    @property
    def server_version(self) -> str:
        """What the server calls itself."""
        return clean_text(self._connection.negotiation.remote_version.encode())

    def statistics(self) -> SshStatistics:
        """Return what the session is doing now."""
        connection = self._connection
        return SshStatistics(
            channels=self.channels, unsent=connection.unsent, round_trip=connection.round_trip
        )


@asynccontextmanager
async def open_ssh_session(
    stream: trio.abc.Stream,
    *,
    user: str,
    identities: Sequence[Identity],
    host_keys: HostKeyPolicy,
    host: str,
    settings: SshSettings | None = None,
) -> AsyncGenerator[SshSession, None]:
    """Log in over *stream* for the length of a block; *host* is what *host_keys* knows the server as.

    The host's key is checked before anything is said about who we are. The session owns *stream*, and closes it.
    When the session ends before the block does, its channels break and `SshSession.wait_closed` returns.

    Raises:
      SshHandshakeError: the peer is no SSH server that we can talk to.
      HostKeyError: its key is unknown, changed or revoked.
      SshAuthenticationError: it took none of the identities.
      SshError: the connection ended.

    """
    async with stream:
        known_types = await host_keys.known_types(host)
        connection = Connection(settings or SshSettings(), host_key_algorithms(known_types))
        wire = open_wire(stream)
        async with open_background() as nursery:
            nursery.start_soon(_read, connection, wire)
            nursery.start_soon(_write, connection, wire)
            nursery.start_soon(_watch, connection)
            try:
                yield await _log_in(connection, user, identities, host_keys, host)
            finally:
                with trio.move_on_after(GOODBYE, shield=True):
                    await _say_goodbye(connection)


async def _log_in(
    connection: Connection, user: str, identities: Sequence[Identity], host_keys: HostKeyPolicy, host: str
) -> SshSession:
    await connection.keys_agreed.wait()
    failure = connection.failure
    if isinstance(failure, SshDisconnectedError):
        raise SshHandshakeError(str(failure)) from failure
    connection.check()
    key = HostKey(connection.negotiation.host_key_blob)
    is_new = await host_keys.verify(host, key)
    connection.start_authentication()
    banner = await authenticate(connection, user, identities)
    connection.start_connection()
    return SshSession(connection=connection, host_key=key, host_key_is_new=is_new, banner=banner)


async def _read(connection: Connection, wire: Wire) -> None:
    try:
        while connection.failure is None:
            size = await wire.read_into(connection.reader.space())
            if not size:
                raise SshDisconnectedError("the server closed the connection")
            connection.heard = trio.current_time()
            connection.received(size)
    except SshError as exc:
        connection.fail(exc)


async def _write(connection: Connection, wire: Wire) -> None:
    writer = connection.writer
    try:
        while connection.failure is None:
            connection.wake = trio.Event()
            while connection.fill():
                taken = writer.take()
                await wire.write_all(taken)
                writer.give_back(taken)
            await connection.wake.wait()
    except SshError as exc:
        connection.fail(exc)


async def _watch(connection: Connection) -> None:
    """Ask a silent peer for a sign of life, end the connection to a dead one, and exchange keys in time."""
    settings = connection.settings
    asked_at: float | None = None
    while connection.failure is None:
        now = trio.current_time()
        if asked_at is not None and connection.heard > asked_at:
            asked_at = None
        if connection.negotiation.running:
            deadline = connection.keys_since + settings.keepalive_timeout
            if now >= deadline:
                connection.fail(SshDisconnectedError("the server does not finish its key exchange"))
        elif asked_at is not None:
            deadline = asked_at + settings.keepalive_timeout
            if now >= deadline:
                silence = now - connection.heard
                connection.fail(SshDisconnectedError(f"the server has been silent for {silence:.0f} s"))
        else:
            deadline = connection.heard + settings.keepalive_interval
            if now >= deadline:
                asked_at = now
                connection.ping()
                continue
        if now >= connection.keys_since + settings.rekey_seconds:
            connection.exchange_keys()
        await trio.sleep_until(min(deadline, now + settings.keepalive_interval))


async def _say_goodbye(connection: Connection) -> None:
    if connection.failure is None:
        connection.goodbye()
        while connection.writer.used:
            await trio.lowlevel.checkpoint()
        connection.fail(SshDisconnectedError("the session was closed here"))
