"""Keep a client's session and QUIC connection up, whether anybody uses them or not.

What may have happened cannot be told apart at first: the network is dark, we have another address, or the server has,
a NAT has forgotten us, or the server has, with its keys. All of them look like silence. So silence gets all the
remedies at once: another socket, a sign of life from there, a request for new keys, which goes out every 5 s at most
as WireGuard has it, and another look-up of the server's name, which nothing waits for. A server that has restarted
answers the request, and says that it does not know the QUIC connection. Streams live as long as their connection does,
which is `QuicSettings.idle_timeout` of silence.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import trio

from awg_obfs.addresses import any_address_like, is_ipv6, shown
from awg_obfs.background import open_background
from awg_obfs.condition import NO_ANSWER, NOTHING_THROUGH, Condition, TunnelState
from awg_obfs.destinations import look_up
from awg_obfs.endpoint import Endpoint, open_endpoint
from awg_obfs.errors import BindError, TunnelDialError
from awg_obfs.events import (
    DatagramRejected,
    HandshakeCompleted,
    HandshakeFailed,
    LookUpFailed,
    Reconnecting,
    SessionDown,
    SessionUp,
    TunnelEvent,
)
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.device import Device
from awg_obfs.protocol.mismatch import advice
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.sizes import QUIC_SMALLEST, quic_datagram_size
from awg_obfs.quic.driver import QuicConnection, open_quic
from awg_obfs.quic.engine import Role
from awg_obfs.quic.engines import settings_after
from awg_obfs.quic.errors import Cause, ConnectionFailure, ConnectionLostError
from awg_obfs.quic.settings import QuicSettings

# A QUIC handshake takes two round trips at most, and two losses are made good within this.
ATTEMPT = 3.0

# New keys are waited for so long where the old ones may be void, before those are tried after all.
NEW_KEYS = 1.0

# Without an answer for so long, another address of the server's name is tried: looked up by the time that WireGuard
# lets us repeat the request, so that the repetition goes there.
NEXT_ADDRESS = 4.0

# How often a silent path gets another socket, and the server is looked up: when WireGuard lets us ask for new keys
# again.
RENEWAL = 5.0

# A resolver that does not answer must not keep us from trying the addresses that we know.
LOOK_UP = 3.0

# Pauses after connections that ended at once, and between look-ups that fail: each twice the last one.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.25, 4.0

# A connection that lived so long did not end at once.
LASTING = 5.0

# A server has one session per key: the last one that was begun with it.
FORGOTTEN = "the server has forgotten this session: it restarted, or another client uses the same key"


@attrs.define(eq=False)
class Upkeep:
    """Keeps up one session with *peer*, at *server*, which may be a name; `run` it.

    *serve* runs beside each connection, as long as that lasts. *connection* is there while it may be used.
    """

    device: Device
    peer: Peer
    server: Address
    mtu: int
    quic: QuicSettings
    condition: Condition
    on_event: Callable[[TunnelEvent], None] = attrs.field(repr=False)
    serve: Callable[[QuicConnection], Awaitable[None]] = attrs.field(repr=False)
    connection: QuicConnection | None = attrs.field(default=None, init=False)
    _doubtful: bool = attrs.field(default=False, init=False)
    """Whether the server may have lost its keys."""
    _pause: float = attrs.field(default=0.0, init=False)
    _new_keys: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    _addresses: list[Address] = attrs.field(factory=list[Address], init=False)
    _threads: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(2), init=False, repr=False
    )

    async def run(self) -> None:
        """Do so, for ever."""
        await self._find_server()
        self.peer.endpoint = self._addresses[0]
        while True:
            try:
                await self._run_endpoint(self._addresses[0])
            except BindError as exc:
                # This process has too many files open, perhaps; that passes.
                self.condition.troubled(str(exc))
                await trio.sleep(LONGEST_PAUSE)

    async def _run_endpoint(self, address: Address) -> None:
        bind = any_address_like(address)
        async with (
            open_endpoint(self.device, bind, lambda _peer, _messages: None, self._happened) as endpoint,
            open_background() as nursery,
        ):
            nursery.start_soon(endpoint.follow_network, self.peer)
            nursery.start_soon(self._follow_name, endpoint)
            while True:
                await self._wait_keys(endpoint)
                new_keys = self._new_keys
                began = trio.current_time()
                failure = await self._connect(endpoint)
                self.quic = settings_after(failure, self.quic)
                self._doubtful = not new_keys.is_set() and _is_doubtful(failure)
                if trio.current_time() - began < LASTING and failure is not None:
                    # New keys are always worth an attempt.
                    with trio.move_on_after(self._pause):
                        await new_keys.wait()
                    self._pause = min(max(2 * self._pause, SHORTEST_PAUSE), LONGEST_PAUSE)
                else:
                    self._pause = 0.0

    # -- the server's addresses

    async def _find_server(self) -> None:
        """Wait until there is an address of the server."""
        pause = SHORTEST_PAUSE
        while not self._addresses:
            self._tell(await self._look_up())
            if not self._addresses:
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _look_up(self) -> str:
        """Look the server up, or once more; what was known stays where that fails. Return why it did."""
        host, port = self.server
        if _is_literal(host):
            self._addresses = [self.server]
            return ""
        with trio.move_on_after(LOOK_UP):
            try:
                found = await look_up(host, port, self._threads)
            except TunnelDialError as exc:
                return f"{host}: {exc}"
            roomy = list(filter(self._has_room, found))
            if not roomy:
                return f"{host}: its address leaves QUIC too little room; lower s4, or raise mtu"
            self._addresses = roomy
            return ""
        return f"{host}: the resolver does not answer"

    def _has_room(self, address: Address) -> bool:
        """Return whether QUIC fits into datagrams to *address*: IPv6 leaves 20 bytes less for it than IPv4."""
        s4 = self.device.parameters.s4
        return quic_datagram_size(self.mtu, s4, ipv6=is_ipv6(address)) >= QUIC_SMALLEST

    def _tell(self, failure: str) -> None:
        if failure:
            self.condition.troubled(failure)
            self.on_event(LookUpFailed(self.peer, failure))

    async def _follow_name(self, endpoint: Endpoint) -> None:
        """Look the server up while it is silent, and go where its name leads now; for ever.

        For as long as there are keys: without any, every address of the name is tried in turn. That a look-up fails
        is no news here, where the network as a whole may be dark.
        """
        if _is_literal(self.server[0]):
            return
        condition = self.condition
        while True:
            began, silent = trio.current_time(), condition.state is not TunnelState.READY
            if silent and self._has_keys():
                await self._look_up()
                # Meanwhile it may have been heard after all.
                silent = condition.state is not TunnelState.READY
                if silent and self.peer.endpoint not in self._addresses:
                    self._move(endpoint, self._addresses[0])
                    endpoint.announce(self.peer)
            with trio.move_on_at(began + RENEWAL if silent else math.inf):
                await condition.wait_change()

    async def _try_next_address(self, endpoint: Endpoint) -> None:
        """Go on with the next address of the server, if there are several."""
        last = self.peer.endpoint
        self._tell(await self._look_up())
        if last in self._addresses:
            following = self._addresses[(self._addresses.index(last) + 1) % len(self._addresses)]
        else:
            following = self._addresses[0]
        if following != last:
            self._move(endpoint, following)

    def _move(self, endpoint: Endpoint, address: Address) -> None:
        last, self.peer.endpoint = self.peer.endpoint, address
        if last is None or is_ipv6(last) != is_ipv6(address):
            # Without such a socket, the next address may do.
            with suppress(BindError):
                endpoint.rebind(any_address_like(address))

    # -- keys

    def _happened(self, event: TunnelEvent) -> None:
        match event:
            case HandshakeCompleted() | HandshakeFailed():
                self._new_keys.set()
                self._new_keys = trio.Event()
            case _:
                pass
        self._learn(event)
        self.on_event(event)

    def _learn(self, event: TunnelEvent) -> None:
        """Keep what *event* says of the reason why there is no session."""
        match event:
            case HandshakeCompleted() if self.connection is None:
                self.condition.learnt(f"{shown(event.address)} {NOTHING_THROUGH}")
            case DatagramRejected() if event.source in (self.peer.endpoint, *self._addresses):
                clue = advice(event.hint)
                if clue:
                    self.condition.learnt(f"{shown(event.source)} answers, but {clue}")
            case _:
                pass

    async def _wait_keys(self, endpoint: Endpoint) -> None:
        """Return when there are keys that may work; where the server may have lost them, preferably new ones."""
        if self._has_keys():
            if self._doubtful:
                endpoint.rehandshake(self.peer)
                with trio.move_on_after(NEW_KEYS):
                    await self._new_keys.wait()
            return
        endpoint.rehandshake(self.peer)
        while not self._has_keys():
            with trio.move_on_after(NEXT_ADDRESS) as patience:
                await self._new_keys.wait()
            if not self._has_keys():
                assert self.peer.endpoint is not None
                self.condition.unanswered(f"{NO_ANSWER} {shown(self.peer.endpoint)}")
                if patience.cancelled_caught:
                    await self._try_next_address(endpoint)
                # The device gives up after a while; we do not.
                endpoint.rehandshake(self.peer)

    def _has_keys(self) -> bool:
        keypair = self.peer.keypairs.current
        return keypair is not None and keypair.can_send(1, trio.current_time())

    # -- the connection

    async def _connect(self, endpoint: Endpoint) -> ConnectionFailure | None:
        """Open a QUIC connection, stay until it has ended, and return why; None where it did not come up in time."""
        began = trio.current_time()
        path = endpoint.path(self.peer, path_mtu=self.mtu)
        silence = trio.Event()

        def on_silence(silent: bool) -> None:
            nonlocal silence
            if not silent:
                silence = trio.Event()
                self.condition.ready()
                return
            reason = f"nothing heard from the server for {self.quic.silent_after:g} s"
            self.condition.troubled(reason)
            self.on_event(Reconnecting(self.peer, reason))
            silence.set()

        async def renew() -> None:
            while True:
                await silence.wait()
                endpoint.renew(self.peer)
                await trio.sleep(RENEWAL)

        async with open_quic(Role.CLIENT, path, settings=self.quic, on_silence=on_silence) as connection:
            path.receiver = connection.received
            if not await self._wait_connection(connection):
                return connection.failure
            self._up(connection, trio.current_time() - began)
            async with open_background() as nursery:
                nursery.start_soon(renew)
                nursery.start_soon(self.serve, connection)
                failure = await connection.wait_closed()
            self._down(failure)
            return failure

    async def _wait_connection(self, connection: QuicConnection) -> bool:
        """Wait for a connection that is coming up; return whether it has."""
        new_keys = self._new_keys
        ready = False

        async def watch_keys() -> None:
            # What was sent with keys that the server did not have is lost: better begin anew than wait for timers.
            await new_keys.wait()
            attempt.cancel()

        with trio.move_on_after(ATTEMPT) as attempt:
            async with open_background() as nursery:
                nursery.start_soon(watch_keys)
                with suppress(ConnectionLostError):
                    await connection.wait_ready()
                    ready = True
        if not ready:
            why = _why(connection.failure)
            if why:
                self.condition.troubled(why)
            else:
                self.condition.unanswered("no answer from the server")
        return ready

    def _up(self, connection: QuicConnection, setup: float) -> None:
        self.connection = connection
        assert self.peer.endpoint is not None
        self.on_event(SessionUp(self.peer, self.peer.endpoint, setup))
        self.condition.ready()

    def _down(self, failure: ConnectionFailure) -> None:
        self.connection = None
        reason = _why(failure)
        self.on_event(SessionDown(self.peer, reason))
        self.condition.troubled(reason)
        self.on_event(Reconnecting(self.peer, reason))


def _is_literal(host: str) -> bool:
    """Return whether *host* is an address, and no name to be looked up."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_doubtful(failure: ConnectionFailure | None) -> bool:
    """Return whether the server may have lost its keys; who still has them can say that it forgot the connection."""
    return failure is None or failure.cause is not Cause.FORGOTTEN


def _why(failure: ConnectionFailure | None) -> str:
    if failure is None:
        return ""
    if failure.cause is Cause.PEER_CLOSED and failure.reason:
        return failure.reason
    if failure.cause is Cause.FORGOTTEN:
        return FORGOTTEN
    return str(failure.cause)
