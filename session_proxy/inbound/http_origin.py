"""An HTTP/1.1 connection to an origin server, on whatever stream leads there."""

from __future__ import annotations

import attrs
import h11
import trio

from session_proxy.errors import BadAnswerError
from session_proxy.inbound.relaying import Traffic
from session_proxy.protocol.http_connect import MAX_HEAD, fault
from session_proxy.protocol.http_forward import has_two_lengths
from session_proxy.target import Target

CUT_SHORT = "closed the connection before its answer was complete"


class NoAnswerError(BadAnswerError):
    """The origin server's connection ended, or made no sense, before there was any response."""


OriginEvent = h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage


def encode_request(request: h11.Request) -> bytes:
    """Return *request*, which has no body, as an `Origin` sends it."""
    return _encode(request, h11.Connection(h11.CLIENT))


def _encode(request: h11.Request, http: h11.Connection) -> bytes:
    return b"".join(http.send(event) or b"" for event in (request, h11.EndOfMessage()))


@attrs.define(eq=False)
class Origin:
    """A connection to the server at *target*; its bytes count as the client's *traffic*."""

    target: Target
    stream: trio.abc.Stream
    traffic: Traffic
    has_answered: bool = attrs.field(default=False, init=False)
    _is_reusable: bool = attrs.field(default=True, init=False)
    _http: h11.Connection = attrs.field(
        factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD), init=False, repr=False
    )

    async def send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        """Send a part of a request; raises `trio.BrokenResourceError`."""
        data = self._http.send(event)
        if data:
            await self.stream.send_all(data)
            self.traffic.sent += len(data)

    def has_got(self, request: h11.Request) -> None:
        """Take note that the server has got *request*, as `encode_request` has it, by the way that led there."""
        _encode(request, self._http)

    @property
    def is_asked(self) -> bool:
        """Whether it has got all of a request."""
        return self._http.our_state is not h11.IDLE

    async def next_event(self) -> OriginEvent:
        """Return the next part of the response.

        Raises:
          NoAnswerError: there is no response.
          BadAnswerError: it breaks off, or makes no sense.

        """
        ended = False
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as exc:
                raise self._bad(CUT_SHORT if ended else f"does not answer in HTTP/1.1: {fault(exc)}") from exc
            if isinstance(event, h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage):
                self.has_answered = True
                if isinstance(event, h11.Response) and has_two_lengths(event.headers.raw_items()):
                    self._is_reusable = False
                return event
            if event is not h11.NEED_DATA:
                # It was closed before our request was under way.
                raise self._bad(CUT_SHORT)
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError as exc:
                raise self._bad(CUT_SHORT) from exc
            ended = not data
            self.traffic.received += len(data)
            self._http.receive_data(bytes(data))

    def _bad(self, what: str) -> BadAnswerError:
        return (BadAnswerError if self.has_answered else NoAnswerError)(f"{self.target} {what}")

    @property
    def is_clean(self) -> bool:
        """Whether nothing is under way that closing would cut off."""
        return self._http.our_state in (h11.IDLE, h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    def trailing_data(self) -> bytes:
        """Return what came after a response that switches protocols."""
        return self._http.trailing_data[0]

    def next_request(self) -> bool:
        """Make ready for another request; `False` where the connection is good for no more."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if not self._is_reusable or self._http.trailing_data[0]:
            # What nobody has asked for must not be taken for the next answer (RFC 9112, section 9.2).
            return False
        self._http.start_next_cycle()
        self.has_answered = False
        return True
