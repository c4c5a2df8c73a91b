"""Requests of a session under Trio: ask and wait for the response, or be asked and answer."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from tunnel_relay.errors import RequestLostError
from tunnel_relay.protocol.exchanges import ExchangeEvent, RequestLost, RequestReceived, ResponseReceived
from tunnel_relay.protocol.requests import Request, Response, Status
from tunnel_relay.protocol.session import Session


@attrs.define(eq=False)
class AskedRequest:
    """A request of the peer, which waits for its answer."""

    request: Request
    _number: int
    _asking: Asking

    def answer(self, response: Response) -> None:
        """Answer it, with no more bytes than it allows; where there is no session any more, nobody hears of it."""
        self._asking.answer(self._number, response)


@attrs.define(eq=False)
class _Waiting:
    done: trio.Event = attrs.field(factory=trio.Event)
    response: Response | None = None
    lost: str = ""


@attrs.define(eq=False)
class Asking:
    """The requests of one end of a session.

    Attributes:
      session: What it is without I/O.
      poke: Called when there is something to send.
      asked: Called with each request of the peer; must not block. Without it, none is done.

    """

    session: Session
    poke: Callable[[], None]
    asked: Callable[[AskedRequest], None] | None
    _waiting: dict[int, _Waiting] = attrs.field(factory=dict[int, _Waiting], init=False)
    # A long request is not passed by short ones for ever.
    _turn: trio.StrictFIFOLock = attrs.field(factory=trio.StrictFIFOLock, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def ask(self, request: Request) -> Response:
        """Return what has become of *request*, however long that takes.

        It may be done all the same where this is cancelled.

        Raises:
          RequestLostError: the session ended first.

        """
        if self._turn.locked() or not self._may_ask(request):
            async with self._turn:
                while not self._may_ask(request):
                    self._changed = trio.Event()
                    await self._changed.wait()
                number = self.session.exchanges.ask(request)
        else:
            number = self.session.exchanges.ask(request)
        waiting = self._waiting[number] = _Waiting()
        self.poke()
        try:
            await waiting.done.wait()
        finally:
            if self._waiting.pop(number, None) is not None:
                self.session.exchanges.abandon(number)
                self.wake()
        if waiting.response is None:
            raise RequestLostError(waiting.lost)
        return waiting.response

    def _may_ask(self, request: Request) -> bool:
        if self.session.lost is not None:
            raise RequestLostError(self.session.lost)
        return self.session.exchanges.may_ask(request)

    def answer(self, number: int, response: Response) -> None:
        """Answer a request of the peer."""
        if self.session.lost is None:
            self.session.exchanges.answer(number, response)
            self.poke()

    def wake(self) -> None:
        """There may be room for more, or no session."""
        self._changed.set()

    def heed(self, event: ExchangeEvent) -> None:
        """Take an event of the session."""
        match event:
            case RequestReceived(number, request):
                self._received(number, request)
            case ResponseReceived(number, response):
                waiting = self._waiting.pop(number)
                waiting.response = response
                waiting.done.set()
            case RequestLost(number, detail):
                waiting = self._waiting.pop(number)
                waiting.lost = detail
                waiting.done.set()

    def _received(self, number: int, request: Request) -> None:
        if self.asked is None:
            self.answer(
                number, Response(id=request.id, status=Status.NOT_ALLOWED, detail="none is done here")
            )
        else:
            self.asked(AskedRequest(request, number, self))
