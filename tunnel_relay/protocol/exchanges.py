"""The requests of a session that wait for their responses: cut into frames here, and put together again.

Memory is bounded in three places.

* What is asked is set aside for at both ends: the payload and the most that the response may be long (`Request.cost`).
  An end asks no more at once than its own `requests` and `request_bytes` allow, and answers what a peer with
  other bounds asks beyond that with BUSY, without keeping its payload. One request is let through however long it is.
* A session's `kept` is for streams, and a request of 16 MiB would not fit. It need not: its pieces become frames one
  by one, as others are acknowledged, so that of all requests and responses no more than `request_kept` bytes are kept
  as frames beside those of streams. So neither waits for room that the other takes up, and what waits at a relay,
  `kept` and `request_kept`, is bounded, too.
* The pieces that leave are copies: a piece that is kept does not hold a payload that nobody needs any more.

Requests take turns piece by piece; a short one does not wait for a long one.
"""

from __future__ import annotations

from collections import deque

import attrs

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.multiplexer import Sender
from tunnel_relay.protocol.requests import Cutter, Request, Response, Status, begins, read_opening

# Answers BUSY that may wait to leave, before a peer that asks on without taking them is cut off.
MOST_DECLINED = 1024


@attrs.frozen
class RequestReceived:
    """The peer asks; `Exchanges.answer` it."""

    number: int
    request: Request


@attrs.frozen
class ResponseReceived:
    """The peer has answered a request of ours."""

    number: int
    response: Response


@attrs.frozen
class RequestLost:
    """The session ended first; the peer may have done what we asked, or may yet."""

    number: int
    detail: str


ExchangeEvent = RequestReceived | ResponseReceived | RequestLost


@attrs.define(eq=False)
class _Arriving:
    message: Request | Response
    length: int
    payload: bytearray


@attrs.define(eq=False)
class _Asked:
    request: Request
    cutter: Cutter
    abandoned: bool = False


@attrs.define(eq=False)
class _Budget:
    """What is set aside for requests that are under way."""

    most: int
    most_bytes: int
    _costs: dict[int, int] = attrs.field(factory=dict[int, int])
    _bytes: int = 0

    @property
    def empty(self) -> bool:
        return not self._costs

    def fits(self, cost: int) -> bool:
        """Return whether there is room for one more."""
        return not self._costs or (len(self._costs) < self.most and self._bytes + cost <= self.most_bytes)

    def add(self, number: int, cost: int) -> None:
        self._costs[number] = cost
        self._bytes += cost

    def remove(self, number: int) -> bool:
        """Return whether it was one of them, which it is no more."""
        cost = self._costs.pop(number, None)
        self._bytes -= cost or 0
        return cost is not None


@attrs.define(eq=False)
class Exchanges:
    """See the module.

    Attributes:
      sender: Takes the frames.
      most: How many requests may be under way, of each end.
      most_bytes: How many bytes they may come to, with their responses.

    """

    sender: Sender
    most: int
    most_bytes: int
    _last: int = attrs.field(default=0, init=False)
    _peer_last: int = attrs.field(default=0, init=False)
    _asked: dict[int, _Asked] = attrs.field(factory=dict[int, _Asked], init=False)
    # Requests of the peer that are to be answered.
    _to_answer: dict[int, Request] = attrs.field(factory=dict[int, Request], init=False)
    _arriving: dict[tuple[FrameType, int], _Arriving] = attrs.field(
        factory=dict[tuple[FrameType, int], _Arriving], init=False
    )
    _leaving: deque[tuple[int, Cutter]] = attrs.field(factory=deque[tuple[int, Cutter]], init=False)
    _declined: int = attrs.field(default=0, init=False)
    _ours: _Budget = attrs.field(init=False)
    _theirs: _Budget = attrs.field(init=False)
    _events: deque[ExchangeEvent] = attrs.field(factory=deque[ExchangeEvent], init=False)

    def __attrs_post_init__(self) -> None:
        self._ours = _Budget(self.most, self.most_bytes)
        self._theirs = _Budget(self.most, self.most_bytes)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        budgets = self._ours.empty and self._theirs.empty
        return budgets and not (self._asked or self._to_answer or self._arriving or self._leaving)

    def take_events(self) -> list[ExchangeEvent]:
        """Return what has happened."""
        events = list(self._events)
        self._events.clear()
        return events

    # -- what the owner does

    def may_ask(self, request: Request) -> bool:
        """Return whether there is room for *request* now."""
        return self._ours.fits(request.cost)

    def ask(self, request: Request) -> int:
        """Send *request*, for which there is room; return its number."""
        assert self.may_ask(request)
        self._last += 1
        number = self._last
        cutter = Cutter(request)
        self._asked[number] = _Asked(request, cutter)
        self._ours.add(number, request.cost)
        self._leaving.append((number, cutter))
        return number

    def abandon(self, number: int) -> None:
        """Nobody waits for the response any more. A request of which something has left is done all the same."""
        asked = self._asked.get(number)
        if asked is None:
            return
        asked.abandoned = True
        if not asked.cutter.begun:
            self._answered(number)

    def answer(self, number: int, response: Response) -> None:
        """Answer a request of the peer, with no more than it asked for."""
        request = self._to_answer.pop(number, None)
        if request is not None:
            assert len(response.payload) <= request.most
            self._leaving.append((number, Cutter(response)))

    def fill(self, room: int) -> None:
        """Hand the sender frames of *room* bytes, or one more."""
        while room > 0 and self._leaving:
            number, cutter = self._leaving.popleft()
            piece = cutter.next()
            self.sender.add(cutter.kind, number, piece)
            room -= len(piece)
            if not cutter.done:
                self._leaving.append((number, cutter))
            elif cutter.kind is FrameType.RESPONSE and not self._theirs.remove(number):
                self._declined -= 1

    def lose(self, detail: str) -> None:
        """The session is over: no response comes any more, and none is sent."""
        for number, asked in self._asked.items():
            if not asked.abandoned:
                self._events.append(RequestLost(number, detail))
        self._asked.clear()
        self._to_answer.clear()
        self._arriving.clear()
        self._leaving.clear()

    # -- what the peer says

    def receive(self, frame: Frame) -> None:
        """Heed a piece of a request or response.

        What goes on with one that is over is passed over: it was answered early.

        Raises:
          RelayProtocolError: the peer breaks the rules, and must not be listened to any more.

        """
        key = frame.type, frame.stream
        arriving = self._arriving.get(key)
        if arriving is None:
            if begins(frame.payload):
                self._begin(frame)
                return
            if not 0 < frame.stream <= (self._peer_last if frame.type is FrameType.REQUEST else self._last):
                raise RelayProtocolError(f"{frame.type.name} {frame.stream} goes on that has not begun")
            return
        if begins(frame.payload):
            raise RelayProtocolError(f"{frame.type.name} {frame.stream} begins twice")
        piece = frame.payload[1:]
        if not piece or len(arriving.payload) + len(piece) > arriving.length:
            raise RelayProtocolError(f"{frame.type.name} {frame.stream} is longer than it said")
        arriving.payload += piece
        self._finish(key, arriving)

    def _begin(self, frame: Frame) -> None:
        number = frame.stream
        opening = read_opening(frame.type, frame.payload)
        message = opening.message
        if isinstance(message, Request):
            if number <= self._peer_last:
                raise RelayProtocolError(f"request {number} came behind {self._peer_last}")
            self._peer_last = number
            cost = opening.length + message.most
            if not self._theirs.fits(cost):
                self._decline(number, message)
                return
            self._theirs.add(number, cost)
        else:
            asked = self._asked.get(number)
            if asked is None:
                raise RelayProtocolError(f"a response to request {number}, which nobody made")
            if message.id != asked.request.id or opening.length > asked.request.most:
                raise RelayProtocolError(f"the response to request {number} does not fit it")
        arriving = _Arriving(message, opening.length, bytearray(message.payload))
        key = frame.type, number
        self._arriving[key] = arriving
        self._finish(key, arriving)

    def _decline(self, number: int, request: Request) -> None:
        """Answer BUSY; what goes on with the request is passed over."""
        if self._declined >= MOST_DECLINED:
            raise RelayProtocolError(f"{MOST_DECLINED} requests too many, and no end")
        self._declined += 1
        busy = Response(id=request.id, status=Status.BUSY, detail="too many requests are under way")
        self._leaving.append((number, Cutter(busy)))

    def _finish(self, key: tuple[FrameType, int], arriving: _Arriving) -> None:
        """Hand over what has arrived whole."""
        if len(arriving.payload) < arriving.length:
            return
        del self._arriving[key]
        number = key[1]
        message = arriving.message
        if isinstance(message, Request):
            request = attrs.evolve(message, payload=bytes(arriving.payload))
            # What it is answered is bounded by it; its payload is kept by whoever does it.
            self._to_answer[number] = attrs.evolve(message, payload=b"")
            self._events.append(RequestReceived(number, request))
            return
        if not self._asked[number].abandoned:
            response = attrs.evolve(message, payload=bytes(arriving.payload))
            self._events.append(ResponseReceived(number, response))
        self._answered(number)

    def _answered(self, number: int) -> None:
        cutter = self._asked.pop(number).cutter
        if not cutter.done:
            # The peer has not waited for all of it.
            self._leaving = deque(each for each in self._leaving if each[1] is not cutter)
        self._ours.remove(number)
