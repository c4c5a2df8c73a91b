"""An SSH session over any Trio stream: paramiko's algorithms, without its thread.

Three tasks serve a session: one reads, one writes, one watches whether the peer is alive. Everything else happens
in the tasks that use it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from tunnel_relay.background import open_background
from tunnel_relay.errors import HostKeyError, SshDisconnectedError, SshError, SshHandshakeError
from tunnel_relay.ssh.algorithms import host_key_algorithms
from tunnel_relay.ssh.authentication import authenticate
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.command import SshCommand
from tunnel_relay.ssh.connection import Connection
from tunnel_relay.ssh.hostkeys import HostKey, HostKeyPolicy
from tunnel_relay.ssh.keys import Identity
from tunnel_relay.ssh.liveness import watch
from tunnel_relay.ssh.outlet import Outlet
from tunnel_relay.ssh.settings import SshSettings
from tunnel_relay.ssh.transport import SshTransport
from tunnel_relay.ssh.wire import Wire, open_wire

# How long the farewell may take: the peer hears it or learns of the closed stream.
GOODBYE = 1.0


@attrs.frozen(kw_only=True)
class SshStatistics:
    """What a session is doing.

    Attributes:
      channels: How many are open or being opened.
      arriving: Bytes per second that came in the last second or so.
      unsent: Bytes that wait to be sent.
      round_trip: The shortest, in seconds.

    """

    channels: int
    arriving: float
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

    _transport: SshTransport = attrs.field(repr=False, alias="transport")
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
        self._check()
        channel = self._connection.open_direct_tcpip(host, port)
        try:
            await channel.wait_open()
        except trio.Cancelled:
            channel.close()
            raise
        return channel

    async def run_command(self, command: str, *, forward_agent: bool = False) -> SshCommand:
        """Run *command*; the stream that comes back is its input and output. What it says as errors is dropped.

        With *forward_agent* it may use an ssh-agent of ours; see `tunnel_relay.ssh.agent_forwarding`. OpenSSH lets
        all later commands of the session do so, too.

        Raises:
          ChannelRefusedError: the server would not run it, or not forward an agent.
          SshDisconnectedError: the session has ended.

        """
        self._check()
        channel = self._connection.open_session()
        try:
            await channel.wait_open()
            if forward_agent and not self._connection.agent_offered:
                await channel.request_agent()
                self._connection.agent_offered = True
            await channel.execute(command)
        except BaseException:
            channel.close()
            raise
        return channel

    def on_agent(self, take: Callable[[SshChannel], None] | None) -> None:
        """Hand the channels over which the server asks for our ssh-agent to *take*; without it, refuse them."""
        self._connection.on_agent = take

    async def ping(self) -> float:
        """Ask the server for a sign of life; return the round trip in seconds.

        Raises:
          SshDisconnectedError: the session has ended.

        """
        self._check()
        started = trio.current_time()
        await self._connection.ping().wait()
        self._check()
        elapsed = trio.current_time() - started
        self._connection.measured(elapsed)
        return elapsed

    async def wait_closed(self) -> None:
        """Wait until the session has ended; `close_reason` says why."""
        await self._transport.ended.wait()

    @property
    def close_reason(self) -> SshError | None:
        """Why the session ended, once it has."""
        return self._connection.failure

    @property
    def channels(self) -> int:
        """How many channels are open or being opened.

        Those that were closed here, and only wait for the server to say so too, carry nothing any more.
        """
        return sum(not channel.closed for channel in self._connection.channels.values())

    @property
    def arriving(self) -> float:
        """Bytes per second that came in the last second or so."""
        return self._transport.arriving.per_second(trio.current_time())

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._connection.unsent

    @property
    def kex(self) -> str:
        """The method of key exchange."""
        return self._transport.negotiation.kex_name

    @property
    def key_exchanges(self) -> int:
        """How many there have been."""
        return self._transport.key_exchanges

    @property
    def cipher(self) -> str:
        """The cipher of what we send."""
        return self._transport.negotiation.local_cipher

    @property
    def compressing(self) -> bool:
        """Whether what we send is compressed."""
        return self._transport.negotiation.compressing

    def _check(self) -> None:
        if (failure := self._connection.failure) is not None:
            raise SshDisconnectedError(str(failure)) from failure

    def statistics(self) -> SshStatistics:
        """Return what the session is doing now."""
        connection = self._connection
        return SshStatistics(
            channels=self.channels,
            arriving=self.arriving,
            unsent=connection.unsent,
            round_trip=connection.round_trip,
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
      HostKeyError: its key is unknown, changed, revoked or too short.
      KnownHostsError: which keys are known cannot be read, or not be added to.
      SshAuthenticationError: it took none of the identities.
      SshError: the connection ended.

    """
    settings = settings or SshSettings()
    async with stream:
        known_types = await host_keys.known_types(host)
        transport = SshTransport(
            settings.rekey_bytes, host_key_algorithms(known_types), compression=settings.compression
        )
        connection = Connection(transport, settings)
        wire = open_wire(stream)
        outlet = Outlet(transport.writer, wire, connection.fill)
        transport.push = outlet.push
        # Whoever cancels the block still wants the peer to hear that we are leaving: the tasks that serve the
        # session go last.
        serving = trio.CancelScope(shield=True)
        async with open_background() as nursery:
            nursery.start_soon(
                _serve, serving, transport, wire, outlet, partial(watch, transport, connection, settings)
            )
            transport.push()
            try:
                await _agree_on_keys(transport)
                host_key = HostKey(transport.negotiation.host_key_blob)
                if host_key.weakness:
                    raise HostKeyError(
                        f"the host key of {host} is {host_key.weakness}; make another one on that host with: "
                        "ssh-keygen -t ed25519 -f /etc/ssh/ssh_host_ed25519_key"
                    )
                is_new = await host_keys.verify(host, host_key)

                def begin() -> None:
                    transport.negotiation.logged_in()
                    connection.start()

                banner = await authenticate(transport, user, identities, on_success=begin)
                yield SshSession(
                    transport=transport,
                    connection=connection,
                    host_key=host_key,
                    host_key_is_new=is_new,
                    banner=banner,
                )
            finally:
                with trio.move_on_after(GOODBYE, shield=True):
                    await _say_goodbye(transport, outlet)
                serving.cancel()


async def _agree_on_keys(transport: SshTransport) -> None:
    await transport.keys_agreed.wait()
    if isinstance(transport.failure, SshDisconnectedError):
        raise SshHandshakeError(str(transport.failure)) from transport.failure
    transport.check()


async def _serve(
    scope: trio.CancelScope,
    transport: SshTransport,
    wire: Wire,
    outlet: Outlet,
    watching: Callable[[], Awaitable[None]],
) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_guard, transport, partial(_read, transport, wire))
            nursery.start_soon(_guard, transport, outlet.run)
            nursery.start_soon(watching)


async def _guard(transport: SshTransport, task: Callable[[], Awaitable[None]]) -> None:
    """Run one of the tasks of a session; what goes wrong in it is why the session ends."""
    try:
        await task()
    except SshError as exc:
        transport.fail(exc)


async def _read(transport: SshTransport, wire: Wire) -> None:
    while transport.failure is None:
        transport.received(await wire.read_into(transport.reader.space()))


async def _say_goodbye(transport: SshTransport, outlet: Outlet) -> None:
    if transport.failure is None:
        transport.disconnect()
        await outlet.wait_drained()
        transport.fail(SshDisconnectedError("the session was closed here"))
