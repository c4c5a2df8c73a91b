"""What a far end does with requests: each once, at its target."""

from __future__ import annotations

import attrs
import trio

from tunnel_relay.asking import AskedRequest
from tunnel_relay.performing import Connect, perform
from tunnel_relay.protocol.requests import Request, Response, Status
from tunnel_relay.record import Outcome, Record


@attrs.define(eq=False)
class Answering:
    """Answers the requests of one owner; they are done though the session that they came over ends.

    Attributes:
      nursery: Does them. How many there are is bounded by the sessions (see exchanges.py).
      record: Knows what was done.
      owner: Whose they are.
      connect: Reaches the targets.
      draining: Why no more are done; "" while they are.

    """

    nursery: trio.Nursery
    record: Record
    owner: str
    connect: Connect
    draining: str = attrs.field(default="", init=False)
    _under_way: int = attrs.field(default=0, init=False)
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)

    def asked(self, asked: AskedRequest) -> None:
        """Do a request, and answer it."""
        if self.draining:
            asked.answer(Response(id=asked.request.id, status=Status.BUSY, detail=self.draining))
            return
        self._under_way += 1
        self.nursery.start_soon(self._answer, asked)

    async def wait_over(self) -> None:
        """Wait until none is being done."""
        while self._under_way:
            self._over = trio.Event()
            await self._over.wait()

    async def _answer(self, asked: AskedRequest) -> None:
        try:
            asked.answer(await self.record.once(self.owner, asked.request, self._act))
        finally:
            self._under_way -= 1
            self._over.set()

    async def _act(self, request: Request) -> Outcome:
        return await perform(request, self.connect)
