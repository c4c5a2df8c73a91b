"""What a far end does with requests: each once, at its target."""

from __future__ import annotations

import attrs
import trio

from tunnel_relay.asking import AskedRequest
from tunnel_relay.performing import Connect, perform
from tunnel_relay.protocol.requests import Request
from tunnel_relay.record import Outcome, Record


@attrs.define(eq=False)
class Answering:
    """Answers the requests of one owner; they are done though the session that they came over ends.

    Attributes:
      nursery: Does them. How many there are is bounded by the sessions (see exchanges.py).
      record: Knows what was done.
      owner: Whose they are.
      connect: Reaches the targets.

    """

    nursery: trio.Nursery
    record: Record
    owner: str
    connect: Connect

    def asked(self, asked: AskedRequest) -> None:
        """Do a request, and answer it."""
        self.nursery.start_soon(self._answer, asked)

    async def _answer(self, asked: AskedRequest) -> None:
        asked.answer(await self.record.once(self.owner, asked.request, self._act))

    async def _act(self, request: Request) -> Outcome:
        return await perform(request, self.connect)
