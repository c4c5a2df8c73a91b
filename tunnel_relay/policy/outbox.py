"""What waits to be sent, by priority and then in the order it came in; bounded, and it says early when it fills.

An item that was taken is still in the outbox: what became of it is not known until it is removed. If its session ends
first it is given back, and goes out again in its old place.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable
from typing import Generic, TypeVar

import attrs

from tunnel_relay.errors import OutboxFullError

Item = TypeVar("Item")


class Priority(enum.IntEnum):
    """What goes first. As long as something more urgent waits, nothing else goes."""

    HIGH = 0
    """Somebody waits for it."""
    NORMAL = 1
    LOW = 2
    """In the background."""


@attrs.frozen(kw_only=True)
class OutboxSettings:
    """Bounds of an outbox.

    Attributes:
      items: How many there may be.
      bytes: How many bytes they may come to.
      pressure: The share of either from which on senders are asked to hold back.

    """

    items: int = 1000
    bytes: int = 64 * 1024 * 1024
    pressure: float = 0.8


@attrs.define
class _Held(Generic[Item]):
    item: Item
    size: int
    priority: Priority
    taken: bool = False


@attrs.define(eq=False)
class Outbox(Generic[Item]):
    """See the module. A *ticket* is what an item is called here; those that came in later have higher ones."""

    settings: OutboxSettings = attrs.field(factory=OutboxSettings)
    _held: dict[int, _Held[Item]] = attrs.field(factory=dict[int, "_Held[Item]"], init=False)
    # What waits: priority and ticket. What was removed while it waited is still in there.
    _waiting: list[tuple[Priority, int]] = attrs.field(factory=list[tuple[Priority, int]], init=False)
    _bytes: int = attrs.field(default=0, init=False)
    _first: int = attrs.field(default=0, init=False)
    _last: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        """How many items there are, with those that were taken."""
        return len(self._held)

    @property
    def bytes(self) -> int:
        """How many bytes they come to."""
        return self._bytes

    @property
    def waiting(self) -> bool:
        """Whether there is anything to take."""
        while self._waiting and self._waiting[0][1] not in self._held:
            heapq.heappop(self._waiting)
        return bool(self._waiting)

    @property
    def pressed(self) -> bool:
        """Whether it is filling, and senders should hold back."""
        share = self.settings.pressure
        return len(self._held) >= share * self.settings.items or self._bytes >= share * self.settings.bytes

    def put(self, item: Item, size: int, priority: Priority) -> int:
        """Add an item of *size* bytes behind the others of its priority; return its ticket.

        Raises:
          OutboxFullError: there is no room for it.

        """
        self.check_room(size)
        self._last += 1
        self._hold(self._last, item, size, priority)
        return self._last

    def check_room(self, size: int) -> None:
        """See whether there is room for an item of *size* bytes.

        Raises:
          OutboxFullError: there is none.

        """
        if len(self._held) >= self.settings.items:
            raise OutboxFullError(f"{len(self._held)} requests are waiting already")
        if self._bytes + size > self.settings.bytes:
            raise OutboxFullError(f"requests of {self._bytes} bytes are waiting already")

    def restore(self, items: Iterable[tuple[Item, int, Priority]]) -> list[int]:
        """Add items of an earlier time, with their sizes, ahead of the others of their priority; return the tickets.

        They were accepted then, so they are now, even where the bounds have become narrower.
        """
        restored = list(items)
        self._first -= len(restored)
        tickets = list(range(self._first, self._first + len(restored)))
        for ticket, (item, size, priority) in zip(tickets, restored, strict=True):
            self._hold(ticket, item, size, priority)
        return tickets

    def take(self) -> tuple[int, Item] | None:
        """Return the next item and its ticket, or None; it is not the next any more."""
        while self._waiting:
            _, ticket = heapq.heappop(self._waiting)
            held = self._held.get(ticket)
            if held is not None:
                held.taken = True
                return ticket, held.item
        return None

    def give_back(self, ticket: int) -> None:
        """Let an item that was taken wait again, in its old place; one that was removed is let be."""
        held = self._held.get(ticket)
        if held is not None and held.taken:
            held.taken = False
            heapq.heappush(self._waiting, (held.priority, ticket))

    def remove(self, ticket: int) -> None:
        """The item is done with, taken or not; one that was removed is let be."""
        held = self._held.pop(ticket, None)
        if held is not None:
            self._bytes -= held.size
            if len(self._waiting) > 2 * len(self._held) + 16:
                # Most of it was removed.
                self._waiting = [each for each in self._waiting if each[1] in self._held]
                heapq.heapify(self._waiting)

    def _hold(self, ticket: int, item: Item, size: int, priority: Priority) -> None:
        self._held[ticket] = _Held(item, size, priority)
        self._bytes += size
        heapq.heappush(self._waiting, (priority, ticket))
