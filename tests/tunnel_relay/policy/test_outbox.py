"""What goes first, and what there is no room for."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tunnel_relay.errors import OutboxFullError
from tunnel_relay.policy.outbox import Outbox, OutboxSettings, Priority

BOUNDS = OutboxSettings(items=10, bytes=1000)


def drain(outbox: Outbox[str]) -> list[str]:
    """Take all that waits."""
    items: list[str] = []
    while (taken := outbox.take()) is not None:
        items.append(taken[1])
    return items


def test_the_urgent_goes_first_and_else_what_came_first() -> None:
    outbox = Outbox[str](BOUNDS)
    for name, priority in (
        ("low", Priority.LOW),
        ("normal", Priority.NORMAL),
        ("high", Priority.HIGH),
        ("later low", Priority.LOW),
        ("later high", Priority.HIGH),
    ):
        outbox.put(name, 1, priority)
    assert drain(outbox) == ["high", "later high", "normal", "low", "later low"]


def test_what_is_given_back_goes_in_its_old_place() -> None:
    outbox = Outbox[str](BOUNDS)
    first = outbox.put("first", 1, Priority.NORMAL)
    outbox.put("second", 1, Priority.NORMAL)
    assert outbox.take() == (first, "first")
    outbox.give_back(first)
    outbox.give_back(first)
    assert drain(outbox) == ["first", "second"]


def test_what_was_taken_counts_until_it_is_removed() -> None:
    outbox = Outbox[str](OutboxSettings(items=1))
    ticket = outbox.put("one", 1, Priority.LOW)
    outbox.take()
    with pytest.raises(OutboxFullError, match="1 requests are waiting already"):
        outbox.put("two", 1, Priority.HIGH)
    outbox.remove(ticket)
    outbox.remove(ticket)
    outbox.give_back(ticket)
    assert (len(outbox), outbox.bytes, outbox.take()) == (0, 0, None)


@pytest.mark.parametrize(
    ("count", "size", "pressed"), [(7, 1, False), (8, 1, True), (1, 799, False), (1, 800, True)]
)
def test_senders_are_asked_to_hold_back_at_four_fifths(count: int, size: int, pressed: bool) -> None:
    outbox = Outbox[str](BOUNDS)
    tickets = [outbox.put("item", size, Priority.NORMAL) for _ in range(count)]
    assert outbox.pressed is pressed
    for ticket in tickets:
        outbox.remove(ticket)
    assert not outbox.pressed


def test_what_is_too_long_is_refused() -> None:
    outbox = Outbox[str](BOUNDS)
    outbox.put("long", 900, Priority.NORMAL)
    with pytest.raises(OutboxFullError, match="requests of 900 bytes are waiting already"):
        outbox.put("long", 101, Priority.HIGH)
    outbox.put("short", 100, Priority.NORMAL)


def test_what_is_restored_goes_ahead_of_the_new_whatever_the_bounds() -> None:
    outbox = Outbox[str](OutboxSettings(items=1))
    outbox.put("new", 1, Priority.HIGH)
    tickets = outbox.restore([("old", 1, Priority.HIGH), ("older?", 1, Priority.HIGH)])
    assert len(tickets) == 2
    outbox.restore([("low", 1, Priority.LOW)])
    assert len(outbox) == 4
    assert drain(outbox) == ["old", "older?", "new", "low"]


class Outboxes(RuleBasedStateMachine):
    """An outbox beside a plain list of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox[int](BOUNDS)
        # Priority, ticket, size, and whether it was taken.
        self.model: dict[int, tuple[Priority, int, bool]] = {}

    @rule(size=st.integers(0, 300), priority=st.sampled_from(Priority))
    def puts(self, size: int, priority: Priority) -> None:
        full = len(self.model) >= 10 or sum(each[1] for each in self.model.values()) + size > 1000
        try:
            ticket = self.outbox.put(size, size, priority)
        except OutboxFullError:
            assert full
        else:
            assert not full
            self.model[ticket] = priority, size, False

    @rule()
    def takes(self) -> None:
        waiting = [(each[0], ticket) for ticket, each in self.model.items() if not each[2]]
        assert self.outbox.waiting is bool(waiting)
        taken = self.outbox.take()
        if not waiting:
            assert taken is None
            return
        priority, ticket = min(waiting)
        size = self.model[ticket][1]
        assert taken == (ticket, size)
        self.model[ticket] = priority, size, True

    @rule(pick=st.integers(0, 9), back=st.booleans())
    def is_done_with(self, pick: int, back: bool) -> None:
        if self.model:
            ticket = sorted(self.model)[pick % len(self.model)]
            if back:
                self.outbox.give_back(ticket)
                self.model[ticket] = *self.model[ticket][:2], False
            else:
                self.outbox.remove(ticket)
                del self.model[ticket]

    @invariant()
    def is_counted(self) -> None:
        assert len(self.outbox) == len(self.model)
        assert self.outbox.bytes == sum(each[1] for each in self.model.values())
        assert len(self.outbox._waiting) <= 2 * 10 + 17


Outboxes.TestCase.settings = settings(max_examples=50, deadline=None)
TestOutboxes = Outboxes.TestCase
