"""An HTTP/1.1 connection to an origin server, on whatever stream leads there."""

from __future__ import annotations

import attrs
import h11
import trio

from session_proxy.inbound.relaying import Traffic
from session_proxy.protocol.http_connect import MAX_HEAD, fault
from session_proxy.target import Target


class NoAnswerError(Exception):
    """The origin server's connection ended, or made no sense, before there was a response."""


OriginEvent = h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage


@attrs.define(eq=False)
class Origin:
    """A connection to the server at *target*; its bytes count as the client's *traffic*."""

    target: Target
    stream: trio.abc.Stream
    traffic: Traffic
    has_answered: bool = attrs.field(default=False, init=False)
    _http: h11.Connection = attrs.field(
        factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD), init=False, repr=False
    )

    async def send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        """Send a part of a request; raises `trio.BrokenResourceError`."""
        data = self._http.send(event)
        if data:
            await self.stream.send_all(data)
            self.traffic.sent += len(data)

    async def next_event(self) -> OriginEvent:
        """Return the next part of the response.

        Raises:
          NoAnswerError: there is no response.
          trio.BrokenResourceError: it breaks off.

        """
        try:
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage):
                    self.has_answered = True
                    return event
                if event is not h11.NEED_DATA:
                    break
                data = await self.stream.receive_some()
                self.traffic.received += len(data)
                self._http.receive_data(bytes(data))
        except h11.RemoteProtocolError as exc:
            if not self.has_answered:
                raise NoAnswerError(f"{self.target} gives no HTTP answer: {fault(exc)}") from exc
            raise trio.BrokenResourceError("the origin server's response makes no sense") from exc
        except trio.BrokenResourceError as exc:
            if not self.has_answered:
                raise NoAnswerError(f"{self.target} broke the connection without an answer") from exc
            raise
        if not self.has_answered:
            raise NoAnswerError(f"{self.target} closed the connection without an answer")
        raise trio.BrokenResourceError("the origin server closed the connection")

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
        self._http.start_next_cycle()
        self.has_answered = False
        return True
