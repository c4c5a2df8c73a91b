"""One client of a server: what it opens through its QUIC connection."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import attrs
import trio

from awg_obfs.associations import Association, AssociationTable
from awg_obfs.background import open_background
from awg_obfs.connecting import dial_error
from awg_obfs.destinations import Destinations
from awg_obfs.errors import DialFault, TunnelDialError, WireError
from awg_obfs.events import AssociationClosed, StreamClosed, StreamOutcome, TunnelEvent
from awg_obfs.idleness import IdleWatch
from awg_obfs.limits import Limits, TokenBucket
from awg_obfs.protocol.datagram_wire import association_number
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.tunnel_wire import (
    CODES,
    AssociateRequest,
    OpenRequest,
    Reply,
    ReplyCode,
    Request,
    ResetCode,
    decode_request,
)
from awg_obfs.quic.driver import QuicConnection
from awg_obfs.quic.errors import ConnectionLostError, StreamResetError
from awg_obfs.quic.stream import QuicStream
from awg_obfs.relaying import Relay

# A client that opens connections too fast waits for its turn, but not longer than this: then it is told.
LONGEST_TURN = 1.0

# First bytes of a client that are held until its destination answers; the rest waits at the client.
MAX_EARLY = 64 * 1024

SUCCEEDED = Reply(ReplyCode.SUCCEEDED).encode()


@attrs.define(eq=False)
class Activity:
    """How many connections are open, all clients together."""

    count: int = 0
    _none: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)

    def begin(self) -> None:
        """There is one more."""
        self.count += 1

    def end(self) -> None:
        """There is one less."""
        self.count -= 1
        if not self.count:
            self._none.set()
            self._none = trio.Event()

    async def wait_none(self) -> None:
        """Wait until there is none."""
        if self.count:
            await self._none.wait()


@attrs.frozen(eq=False, kw_only=True)
class Services:
    """What all clients of a server share."""

    destinations: Destinations
    limits: Limits
    idle: IdleWatch
    on_event: Callable[[TunnelEvent], None]
    activity: Activity = attrs.field(factory=Activity, init=False)
    draining: trio.Event = attrs.field(factory=trio.Event, init=False)


@attrs.define(eq=False)
class ClientService:
    """Serves the client at the other end of *connection*: `run` it."""

    peer: Peer
    _connection: QuicConnection
    _services: Services
    streams: int = attrs.field(default=0, init=False)
    """Connections that are open, or being opened."""
    _destinations: Destinations = attrs.field(init=False)
    _bucket: TokenBucket = attrs.field(init=False)
    _associations: AssociationTable = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        limits = self._services.limits
        self._destinations = self._services.destinations.of_client(self.peer)
        # What a second brings may come at once: a page with all its pictures.
        self._bucket = TokenBucket(limits.opens, max(1.0, limits.opens))
        self._associations = AssociationTable(limits.associations)

    async def run(self) -> None:
        """Serve until the connection is over.

        Raises:
          ConnectionLostError: it is.

        """
        async with open_background() as nursery:
            nursery.start_soon(self._carry_datagrams)
            while True:
                stream = await self._connection.accept_stream()
                nursery.start_soon(self._serve, stream)

    async def _carry_datagrams(self) -> None:
        with contextlib.suppress(ConnectionLostError):
            while True:
                frame = await self._connection.receive_datagram()
                self._associations.take(frame, trio.current_time())

    async def _serve(self, stream: QuicStream) -> None:
        try:
            asked = None
            with trio.move_on_after(self._services.limits.handshake):
                asked = await read_request(stream)
            match asked:
                case (OpenRequest() as request, early):
                    await self._connect(stream, request, early)
                case (AssociateRequest(), _):
                    await self._associate(stream)
                case None:
                    stream.reset(ResetCode.IDLE)
        except WireError as exc:
            await self._refuse(stream, Reply(ReplyCode.GENERAL_FAILURE, str(exc)))
        except (StreamResetError, ConnectionLostError):
            stream.reset(ResetCode.CANCELLED)

    async def _refuse(self, stream: QuicStream, reply: Reply) -> None:
        """Say *reply*, and that nothing more will be read."""
        with contextlib.suppress(StreamResetError, ConnectionLostError):
            await self._say(stream, reply.encode())
        stream.close()

    async def _say(self, stream: QuicStream, words: bytes) -> bool:
        """Send *words*; return whether the client has let us, or else the stream is reset.

        Raises:
          StreamResetError, ConnectionLostError: the client does not listen any more.

        """
        with trio.move_on_after(self._services.limits.handshake) as patience:
            await stream.send_all(words)
        if patience.cancelled_caught:
            stream.reset(ResetCode.IDLE)
        return not patience.cancelled_caught

    # -- connections

    async def _connect(self, stream: QuicStream, request: OpenRequest, early: bytes) -> None:
        services, began = self._services, trio.current_time()
        relay: Relay | None = None
        took: float | None = None
        outcome, detail = StreamOutcome.RESET, ""
        self.streams += 1
        services.activity.begin()
        try:
            relay, early = await self._dial(stream, request, early)
            took = trio.current_time() - began
            services.idle.add(relay)
            await relay.run(SUCCEEDED, early)
        except TunnelDialError as exc:
            outcome, detail = StreamOutcome(exc.fault), str(exc)
            await self._refuse(stream, Reply(CODES[exc.fault], detail))
        finally:
            self.streams -= 1
            services.activity.end()
            if relay is not None:
                services.idle.discard(relay)
                outcome = relay.outcome
            if outcome is StreamOutcome.RESET and services.draining.is_set():
                outcome = StreamOutcome.DRAINED
            services.on_event(
                StreamClosed(
                    peer=self.peer,
                    host=request.host,
                    port=request.port,
                    sent=0 if relay is None else relay.sent,
                    received=0 if relay is None else relay.received,
                    duration=trio.current_time() - began,
                    connect_duration=took,
                    outcome=outcome,
                    detail=detail,
                )
            )

    async def _dial(self, stream: QuicStream, request: OpenRequest, early: bytes) -> tuple[Relay, bytes]:
        """Connect to what is requested; return that, and the first bytes for it.

        Raises:
          TunnelDialError: it was not reached.
          StreamResetError, ConnectionLostError: the client wants it no more.

        """
        limits = self._services.limits
        await self._wait_for_turn()
        first = bytearray(early)
        gone: list[trio.BrokenResourceError] = []

        async def watch() -> None:
            # Who gives up before the destination answers resets the stream.
            try:
                while len(first) < MAX_EARLY and (data := await stream.receive_some(MAX_EARLY)):
                    first.extend(data)
            except (StreamResetError, ConnectionLostError) as exc:
                gone.append(exc)
                patience.cancel()

        # Time may be up, and the client gone, in the very moment in which there is a connection.
        with contextlib.ExitStack() as unused, trio.move_on_after(limits.connect) as patience:
            async with open_background() as nursery:
                nursery.start_soon(watch)
                sock = unused.enter_context(await self._destinations.connect(request.host, request.port))
            unused.pop_all()
            return Relay(stream, sock), bytes(first)
        if gone:
            raise gone[0]
        raise TunnelDialError(DialFault.TIMEOUT, f"no answer within {limits.connect:g} s")

    async def _wait_for_turn(self) -> None:
        limits = self._services.limits
        if self._services.draining.is_set():
            raise TunnelDialError(DialFault.DOWN, "the server is stopping")
        if self.streams > limits.streams:
            raise TunnelDialError(
                DialFault.LIMIT, f"the server allows {limits.streams} connections at a time"
            )
        await self._take_turn()

    async def _take_turn(self) -> None:
        """Wait until the client may open one more thing.

        Raises:
          TunnelDialError: that would take too long.

        """
        turn = self._bucket.take(trio.current_time(), patience=LONGEST_TURN)
        if turn is None:
            raise TunnelDialError(
                DialFault.LIMIT, f"the server allows {self._services.limits.opens:g} new connections a second"
            )
        if turn:
            await trio.sleep(turn)

    # -- UDP

    async def _associate(self, stream: QuicStream) -> None:
        services, table, began = self._services, self._associations, trio.current_time()
        try:
            await self._take_turn()
            # Nothing waits between the look at the table and the entry in it.
            association = self._open_association(association_number(stream.stream_id))
        except TunnelDialError as exc:
            await self._refuse(stream, Reply(CODES[exc.fault], str(exc)))
            return
        table.add(association)
        services.idle.add(association)
        try:
            if await self._say(stream, SUCCEEDED):
                async with open_background() as nursery:
                    nursery.start_soon(_end_with, stream, association)
                    await association.run()
                stream.close()
        finally:
            services.idle.discard(association)
            table.discard(association)
            association.close()
            counters = association.counters
            services.on_event(
                AssociationClosed(
                    peer=self.peer,
                    sent=counters.sent,
                    received=counters.received,
                    dropped=counters.dropped,
                    duration=trio.current_time() - began,
                )
            )

    def _open_association(self, number: int) -> Association:
        services = self._services
        if services.draining.is_set():
            raise TunnelDialError(DialFault.DOWN, "the server is stopping")
        if self._associations.is_full:
            most = services.limits.associations
            raise TunnelDialError(DialFault.LIMIT, f"the server allows {most} UDP associations at a time")
        try:
            return Association(number, self._destinations, self._transmit, self._connection.largest_datagram)
        except OSError as exc:
            raise dial_error(exc) from exc

    def _transmit(self, frame: bytes) -> None:
        with contextlib.suppress(ConnectionLostError):
            self._connection.send_datagram(frame)


async def _end_with(stream: QuicStream, association: Association) -> None:
    """End *association* when the client ends its *stream*."""
    with contextlib.suppress(StreamResetError, ConnectionLostError):
        while await stream.receive_some():
            pass
    association.expire()


async def read_request(stream: QuicStream) -> tuple[Request, bytes]:
    """Return what the client asks for, and what it has sent behind.

    Raises:
      WireError: it cannot be read.
      StreamResetError, ConnectionLostError: the client has gone.

    """
    data = b""
    while (decoded := decode_request(data)) is None:
        more = await stream.receive_some(MAX_EARLY)
        if not more:
            raise WireError("the stream ended within its request")
        data += more
    request, end = decoded
    return request, data[end:]
