"""Requests as a client makes them: queued by priority, kept while there is no way to the agent, and asked again.

Whatever becomes of links and sessions, a request is asked until there is a response; its id keeps the far end from
doing it twice. Those of high priority are written to a file first and outlive the program; the response to one of an
earlier time is told to *notify*.

What was sent is sent again only to whoever has the same record: a far end that took the other's place knows nothing of
it, and would do it twice. Nor is it sent again once that record may have forgotten it. That is told by the time of day:
no other clock goes on while the program does not run, or the machine sleeps.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import attrs
import trio

from tunnel_relay.background import open_background
from tunnel_relay.client.outbox_store import OutboxStore, Sent
from tunnel_relay.errors import OutboxFullError, RequestLostError, StoreError
from tunnel_relay.policy.outbox import Outbox, OutboxSettings, Priority
from tunnel_relay.protocol.requests import Request, Response, Status

# How many are asked at a time: a more urgent one waits for one of them to be answered, not for all that wait. The far
# end writes them down together, so that more of them make each cheaper; a session allows 256.
AT_A_TIME = 192

# Seconds before what could not be asked is asked again.
PAUSE = 1.0

# Seconds for which what was sent may be sent again: a far end keeps its record for a day, and clocks differ.
SENT_KEPT = 23 * 3600.0

EXPIRED = "it was sent a day ago and never answered: nobody knows whether it was done"
ELSEWHERE = (
    "it was sent to another agent or relay server than there is now, and never answered: "
    "nobody knows whether it was done"
)


class Reachable(Protocol):
    """A session with a far end."""

    @property
    def record(self) -> str:
        """What tells its record of requests from those of others."""
        ...

    async def ask(self, request: Request) -> Response:
        """Return what has become of *request*; raises `RequestLostError` where it is to be asked again."""
        ...


class Way(Protocol):
    """What leads to the far end, over one session after the other."""

    async def wait_ready(self) -> Reachable:
        """Return the session, once there is a link."""
        ...


@attrs.frozen
class Pressure:
    """The outbox begins to be full, or no longer is: hold requests back, or go on."""

    pressed: bool


@attrs.frozen
class AnsweredLate:
    """A request for which nobody waits any more was answered."""

    request: Request
    response: Response


@attrs.frozen
class UnknownOutcome:
    """The request with that id was sent, and is not sent again; nobody knows whether it was done; says why."""

    id: str
    detail: str


ForwardingEvent = Pressure | AnsweredLate | UnknownOutcome


@attrs.define(eq=False)
class _Entry:
    request: Request
    stored: bool
    done: trio.Event = attrs.field(factory=trio.Event)
    waited_for: bool = True
    sent: Sent | None = None
    tell_sent: Callable[[bool], None] = lambda _: None
    response: Response | None = None
    lost: str = ""


@attrs.define(eq=False)
class Forwarding:
    """See the module; `open_forwarding` makes one."""

    _way: Way
    _outbox: Outbox[_Entry]
    _store: OutboxStore | None
    _notify: Callable[[ForwardingEvent], None]
    _clock: Callable[[], float] = time.time
    _pressed: bool = attrs.field(default=False, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __len__(self) -> int:
        """How many requests have no response yet."""
        return len(self._outbox)

    @property
    def pressed(self) -> bool:
        """Whether the outbox is filling, and no more requests should be made for now."""
        return self._pressed

    async def forward(
        self,
        request: Request,
        priority: Priority = Priority.NORMAL,
        *,
        accepted: Callable[[], None] | None = None,
        sent: Callable[[bool], None] | None = None,
    ) -> Response:
        """Return what has become of *request*, however long that takes; *accepted* is called once it waits.

        *sent* is called with whether it has been sent, and may have been done, when that is another matter than before.
        Where this is cancelled, a request of high priority that has been accepted is made all the same.

        Raises:
          OutboxFullError: too many wait; this one was not accepted.
          StoreError: it could not be written to the disk, and was not accepted.
          RequestLostError: it was sent, never answered, and must not be sent again; it may have been done.

        """
        size = len(request.payload)
        self._outbox.check_room(size)
        store = self._store if priority is Priority.HIGH else None
        earlier = None if store is None else await store.keep(request)
        # What was sent before may have been done, whoever asks for it now.
        entry = _Entry(request, store is not None, sent=None if earlier is None else earlier.sent)
        if sent is not None:
            entry.tell_sent = sent
        try:
            ticket = self._outbox.put(entry, size, priority)
        except OutboxFullError:
            # Others came while it was written. One that was accepted earlier is kept.
            if store is not None and earlier is None:
                with trio.CancelScope(shield=True):
                    await store.forget(request.id)
            raise
        self._change()
        if accepted is not None:
            accepted()
        if entry.sent is not None:
            entry.tell_sent(True)
        try:
            await entry.done.wait()
        finally:
            entry.waited_for = False
            if not entry.stored:
                self._outbox.remove(ticket)
                self._change()
        if entry.response is None:
            raise RequestLostError(entry.lost)
        return entry.response

    async def wait_empty(self) -> None:
        """Wait until no request waits for its response."""
        while len(self._outbox):
            await self._changed.wait()

    async def restore(self) -> None:
        """Take up what an earlier time has left."""
        if self._store is None:
            return
        entries: list[_Entry] = []
        for kept in await self._store.restore():
            if self._has_expired(kept.sent):
                await self._store.forget(kept.request.id)
                self._notify(UnknownOutcome(kept.request.id, EXPIRED))
            else:
                entries.append(_Entry(kept.request, stored=True, waited_for=False, sent=kept.sent))
        self._outbox.restore((entry, len(entry.request.payload), Priority.HIGH) for entry in entries)
        self._change()

    async def run(self) -> None:
        """Ask what waits, until cancelled."""
        at_a_time = trio.Semaphore(AT_A_TIME)
        async with trio.open_nursery() as nursery:
            while True:
                await at_a_time.acquire()
                taken = None
                while taken is None:
                    if self._outbox.waiting:
                        # Nothing counts as sent before it can be; and what is most urgent shows then.
                        far = await self._way.wait_ready()
                        if (taken := self._outbox.take()) is not None:
                            nursery.start_soon(self._try, *taken, far, at_a_time)
                    else:
                        await self._changed.wait()

    async def _try(self, ticket: int, entry: _Entry, far: Reachable, at_a_time: trio.Semaphore) -> None:
        """Ask once."""
        try:
            await self._ask_once(entry, far)
            if entry.response is None and not entry.lost:
                await trio.sleep(PAUSE)
                self._outbox.give_back(ticket)
            else:
                await self._end(ticket, entry)
        finally:
            at_a_time.release()
            self._change()

    async def _ask_once(self, entry: _Entry, far: Reachable) -> None:
        first = entry.sent is None
        if entry.sent is None:
            sent = Sent(self._clock(), far.record)
            if not await self._mark_sent(entry, sent):
                return
            entry.sent = sent
            entry.tell_sent(True)
        elif self._has_expired(entry.sent):
            entry.lost = EXPIRED
            return
        elif entry.sent.record != far.record:
            entry.lost = ELSEWHERE
            return
        try:
            response = await far.ask(entry.request)
        except RequestLostError:
            return
        if response.status is not Status.BUSY:
            entry.response = response
        elif first:
            # Nothing was done: another far end may do it.
            await self._mark_unsent(entry)

    def _has_expired(self, sent: Sent | None) -> bool:
        return sent is not None and self._clock() - sent.at > SENT_KEPT

    async def _mark_sent(self, entry: _Entry, sent: Sent) -> bool:
        if entry.stored and self._store is not None:
            try:
                await self._store.mark_sent(entry.request.id, sent)
            except StoreError:
                # It waits: after the next start nobody would know that it was sent.
                return False
        return True

    async def _mark_unsent(self, entry: _Entry) -> None:
        if entry.stored and self._store is not None:
            try:
                await self._store.mark_unsent(entry.request.id)
            except StoreError:
                return
        entry.sent = None
        entry.tell_sent(False)

    async def _end(self, ticket: int, entry: _Entry) -> None:
        if entry.stored and self._store is not None:
            try:
                # Whoever ends the program meanwhile is told how it went all the same.
                with trio.CancelScope(shield=True):
                    await self._store.forget(entry.request.id)
            except StoreError:
                # It is asked again after the next start, and answered from the far end's record.
                entry.stored = False
        self._outbox.remove(ticket)
        entry.done.set()
        if entry.waited_for:
            return
        if entry.response is not None:
            self._notify(AnsweredLate(entry.request, entry.response))
        else:
            self._notify(UnknownOutcome(entry.request.id, entry.lost))

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        if self._outbox.pressed is not self._pressed:
            self._pressed = self._outbox.pressed
            self._notify(Pressure(self._pressed))


@asynccontextmanager
async def open_forwarding(
    way: Way,
    *,
    settings: OutboxSettings,
    store: OutboxStore | None,
    notify: Callable[[ForwardingEvent], None],
    clock: Callable[[], float] = time.time,
) -> AsyncGenerator[Forwarding]:
    """Forward requests that *way*; *clock* tells the time of day, in seconds.

    Raises:
      StoreError: what is left of an earlier time cannot be read.

    """
    forwarding = Forwarding(way, Outbox(settings), store, notify, clock)
    await forwarding.restore()
    async with open_background() as nursery:
        nursery.start_soon(forwarding.run)
        yield forwarding
        nursery.cancel_scope.cancel()
