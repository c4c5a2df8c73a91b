"""The relay's public port: lets in whoever has a token, shows everybody else its pages, and keeps both in bounds.

What comes is, in this order: a PROXY header where a balancer sends them, TLS, and the head of an HTTP request. All of
it has to be here within the handshake's time; so whoever sends it byte by byte holds a place for so long and no longer,
and the places of each address are numbered.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from http import HTTPStatus

import attrs
import trio

from tunnel_relay.errors import RelayProtocolError, WebSocketError
from tunnel_relay.policy.access import Held
from tunnel_relay.policy.rate import Act, Buckets, Rate, address_key
from tunnel_relay.protocol.proxy_header import read_proxy_header
from tunnel_relay.protocol.tokens import Claims, TokenError
from tunnel_relay.protocol.upgrade import CONNECT_PATH, SUBPROTOCOL
from tunnel_relay.server.addresses import Network, client_address, is_trusted
from tunnel_relay.server.admission import AdmissionError, Asking, read_asking
from tunnel_relay.server.events import CAUSES, Cause, Origin, TurnedAway
from tunnel_relay.server.heads import Head, HeadError, read_head, turn_away
from tunnel_relay.server.service import RelayService
from tunnel_relay.streams import ReplayedStream
from tunnel_relay.tls import server_tls

# Who is turned away gets so many seconds to read why.
PARTING = 1.0

# Guessed, as what may come from one address is: four times as much, since some only look whether we live.
ARRIVALS = Rate(20, 1.0, 400)

# Seconds until somebody who has too much at a time may ask again.
LATER = 5.0

# Seconds in which another server may have taken over, or this one be back.
BACK = 1.0

_READ = 16384
_MAX_WORD = 64
_CORRELATION = ("x-correlation-id", "x-request-id", "traceparent")
_MAX_AGENT = 200
_SCOPE = 'Bearer error="insufficient_scope"'
_INVALID = 'Bearer error="invalid_token", error_description="{}"'


@attrs.frozen(kw_only=True)
class PortSettings:
    """How the port is kept.

    Attributes:
      tls: Returns the context for the next connection; None for no TLS.
      trusted: Whose word is taken for whose connection it is.
      proxy_protocol: Those begin every connection with a PROXY header.
      handshake: Seconds for all of it, up to the end of the request's head.
      connections: All together.
      waiting: Those of which nobody knows yet whose they are.
      waiting_each: Of them, those from one address.
      arrivals: How often one address may connect at all. TLS costs us more than them.

    """

    tls: Callable[[], ssl.SSLContext] | None = None
    trusted: tuple[Network, ...] = ()
    proxy_protocol: bool = False
    handshake: float = 10.0
    connections: int = 10_000
    waiting: int = 1024
    waiting_each: int = 64
    arrivals: Rate = ARRIVALS


class _TurnedAwayError(Exception):
    def __init__(
        self, cause: Cause, status: int, detail: str, headers: Mapping[str, str] | None = None, user: str = ""
    ) -> None:
        self.cause, self.status, self.detail, self.headers, self.user = cause, status, detail, headers, user
        super().__init__(detail)


@attrs.define(eq=False)
class _Arrival:
    """A connection on its way in; *stream* is what is to be answered on, and *places* it holds until it is in."""

    stream: trio.abc.Stream
    origin: Origin
    places: contextlib.ExitStack


@attrs.frozen
class _Admission:
    stream: trio.abc.Stream
    read: bytes
    asking: Asking
    claims: Claims
    origin: Origin


@attrs.define(eq=False)
class PublicPort:
    """See the module.

    Attributes:
      service: Has the links of those who are let in.
      pages: Answers the one request on a stream that asks for no link, and returns.
      settings: Bounds.
      draining: Whether nobody is let in any more.

    """

    service: RelayService
    pages: Callable[[trio.abc.Stream], Awaitable[None]]
    settings: PortSettings = attrs.field(factory=PortSettings)
    draining: bool = attrs.field(default=False, init=False)
    _arrivals: Buckets = attrs.field(factory=Buckets, init=False)
    _waiting: int = attrs.field(default=0, init=False)
    _waiting_each: Counter[str] = attrs.field(factory=Counter[str], init=False)
    _linked: int = attrs.field(default=0, init=False)

    async def serve_socket(self, stream: trio.SocketStream) -> None:
        """Serve a connection that was accepted; does not raise for what the other end does."""
        try:
            peer = str(stream.socket.getpeername()[0])
        except OSError:
            return
        await self.serve(stream, peer)

    async def serve(self, stream: trio.abc.Stream, peer: str) -> None:
        """Serve a connection from the address *peer*."""
        origin = Origin(connection=secrets.token_hex(6), address=client_address(peer, "", ()))
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            with contextlib.ExitStack() as places:
                admission = await self._receive(_Arrival(stream, origin, places))
            if admission is not None:
                await self._link(admission)

    async def _receive(self, arrival: _Arrival) -> _Admission | None:
        """Return who has come to be let in; None where somebody else did."""
        try:
            arrival.places.enter_context(self._place())
            arrival.places.enter_context(self._place_of(arrival.origin.address))
            return await self._arrive_in_time(arrival)
        except _TurnedAwayError as exc:
            await self._part(arrival.stream, arrival.origin, exc)
        return None

    @contextlib.contextmanager
    def _place(self) -> Generator[None]:
        """Hold one of the places for those of whom nothing is known."""
        settings = self.settings
        if self._waiting >= settings.waiting or self._waiting + self._linked >= settings.connections:
            raise _TurnedAwayError(Cause.CROWD, 0, "there are too many connections")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @contextlib.contextmanager
    def _place_of(self, address: str) -> Generator[None]:
        """Hold one of those that *address* may have at a time; a balancer has many clients."""
        settings, key = self.settings, address_key(address)
        if is_trusted(address, settings.trusted):
            yield
            return
        if self._waiting_each[key] >= settings.waiting_each or self._arrivals.take(
            key, settings.arrivals, trio.current_time()
        ):
            raise _TurnedAwayError(Cause.CROWD, 0, "there are too many connections from this address")
        self._waiting_each[key] += 1
        try:
            yield
        finally:
            self._waiting_each[key] -= 1
            if not self._waiting_each[key]:
                del self._waiting_each[key]

    async def _arrive_in_time(self, arrival: _Arrival) -> _Admission | None:
        with trio.move_on_after(self.settings.handshake):
            return await self._arrive(arrival)
        raise _TurnedAwayError(Cause.SLOW, 0, "nobody has said in time who it is")

    async def _arrive(self, arrival: _Arrival) -> _Admission | None:
        settings, origin = self.settings, arrival.origin
        if settings.proxy_protocol and is_trusted(origin.address, settings.trusted):
            arrival.stream, source = await _read_proxy_header(arrival.stream)
            if source is not None:
                arrival.origin = attrs.evolve(origin, address=client_address(source, "", ()))
                arrival.places.enter_context(self._place_of(arrival.origin.address))
        if settings.tls is not None:
            stream = server_tls(arrival.stream, settings.tls())
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError as exc:
                raise _TurnedAwayError(Cause.NONSENSE, 0, _why(exc)) from exc
            arrival.stream = stream
        try:
            head, read = await read_head(arrival.stream)
        except HeadError as exc:
            if not exc.status:
                return None
            raise _TurnedAwayError(Cause.NONSENSE, exc.status, str(exc)) from exc
        arrival.origin = self._known_by(head, arrival.origin)
        if head.path != CONNECT_PATH:
            await self.pages(ReplayedStream(arrival.stream, read))
            return None
        asking, claims = self._judge(head, arrival.origin)
        return _Admission(arrival.stream, read, asking, claims, arrival.origin)

    def _known_by(self, head: Head, origin: Origin) -> Origin:
        """Return what the *head* adds to what is known of its *origin*."""
        address = client_address(
            origin.address, head.headers.get("x-forwarded-for", ""), self.settings.trusted
        )
        words = (head.headers.get(name, "") for name in _CORRELATION)
        word = next(filter(None, words), "")
        sane = 0 < len(word) <= _MAX_WORD and word.isascii() and word.isprintable()
        return attrs.evolve(
            origin,
            address=address,
            correlation=word if sane else origin.connection,
            user_agent=head.headers.get("user-agent", "")[:_MAX_AGENT],
        )

    def _judge(self, head: Head, origin: Origin) -> tuple[Asking, Claims]:
        """Return who asks, and for what, if it may have it."""
        if head.method != "GET":
            raise _TurnedAwayError(
                Cause.NONSENSE,
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{CONNECT_PATH} takes GET",
                {"Allow": "GET"},
            )
        if self.draining:
            headers = {"Retry-After": str(math.ceil(BACK))}
            detail = "the relay is being shut down"
            raise _TurnedAwayError(Cause.DRAINING, HTTPStatus.SERVICE_UNAVAILABLE, detail, headers)
        service, now = self.service, trio.current_time()
        wait = service.rates.connect(origin.address, now)
        if wait:
            raise _too_many(Cause.RATE, wait, "too many connections come from your address")
        try:
            asking = read_asking(head.query, head.headers)
            claims = service.admit(asking)
        except (TokenError, AdmissionError) as exc:
            raise _unknown(exc) from exc
        user = claims.user
        if not head.asks_for_websocket() or SUBPROTOCOL not in head.subprotocols():
            headers = {"Upgrade": "websocket", "Connection": "Upgrade, close"}
            detail = f"this is for WebSockets that speak {SUBPROTOCOL}"
            raise _TurnedAwayError(Cause.NONSENSE, HTTPStatus.UPGRADE_REQUIRED, detail, headers, user)
        wait = service.rates.upgrade(user, claims.tier, now)
        if wait:
            raise _too_many(Cause.RATE, wait, f"this is one {Act.UPGRADE.value} too many for now", user)
        return asking, claims

    async def _link(self, admission: _Admission) -> None:
        service, claims, origin = self.service, admission.claims, admission.origin
        denial = service.access.take(claims.user, claims.tier, Held.CONNECTIONS)
        if denial is not None:
            exc = _too_many(Cause.LIMIT, LATER, denial.detail, claims.user)
            await self._part(admission.stream, origin, exc)
            return
        self._linked += 1
        try:
            await service.serve(admission.stream, admission.read, admission.asking, claims, origin)
        except WebSocketError as exc:
            self._tell(origin, _TurnedAwayError(Cause.NONSENSE, 0, str(exc), user=claims.user))
        finally:
            self._linked -= 1
            service.access.give_back(claims.user, Held.CONNECTIONS)

    async def _part(self, stream: trio.abc.Stream, origin: Origin, exc: _TurnedAwayError) -> None:
        """Say why there is no link, and wait a moment, lest what was not read undo the answer."""
        self._tell(origin, exc)
        if not exc.status:
            return
        with trio.move_on_after(PARTING):
            await stream.send_all(turn_away(exc.status, exc.detail, exc.headers))
            while await stream.receive_some(_READ):
                pass

    def _tell(self, origin: Origin, exc: _TurnedAwayError) -> None:
        self.service.notify(
            TurnedAway(origin=origin, cause=exc.cause, status=exc.status, detail=exc.detail, user=exc.user)
        )


def _too_many(cause: Cause, wait: float, detail: str, user: str = "") -> _TurnedAwayError:
    headers = {"Retry-After": str(math.ceil(wait))}
    return _TurnedAwayError(cause, HTTPStatus.TOO_MANY_REQUESTS, detail, headers, user)


def _unknown(exc: TokenError | AdmissionError) -> _TurnedAwayError:
    if isinstance(exc, TokenError):
        headers = {"WWW-Authenticate": _INVALID.format(exc)}
        return _TurnedAwayError(CAUSES[exc.fault], HTTPStatus.UNAUTHORIZED, str(exc), headers)
    match exc.status:
        case HTTPStatus.UNAUTHORIZED:
            return _TurnedAwayError(Cause.NO_TOKEN, exc.status, str(exc), {"WWW-Authenticate": "Bearer"})
        case HTTPStatus.FORBIDDEN:
            return _TurnedAwayError(Cause.SCOPE, exc.status, str(exc), {"WWW-Authenticate": _SCOPE})
        case _:
            return _TurnedAwayError(Cause.NONSENSE, exc.status, str(exc))


async def _read_proxy_header(stream: trio.abc.Stream) -> tuple[trio.abc.Stream, str | None]:
    """Return the stream behind the header, and whom it names."""
    data = b""
    while True:
        try:
            header = read_proxy_header(data)
        except RelayProtocolError as exc:
            raise _TurnedAwayError(Cause.NONSENSE, 0, str(exc)) from exc
        if header is not None:
            return ReplayedStream(stream, data[header.length :]), header.source
        more = await stream.receive_some(_READ)
        if not more:
            raise _TurnedAwayError(Cause.NONSENSE, 0, "a PROXY header is cut off")
        data += more


def _why(exc: trio.BrokenResourceError) -> str:
    """Return why there is no TLS."""
    cause = exc.__cause__
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    return f"no TLS: {(reason or 'the other end hung up').replace('_', ' ').lower()}"
