from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from session_proxy.protocol.ssm_reliability import (
    INITIAL_RTO,
    INITIAL_WINDOW,
    MAX_BACKOFF,
    MAX_REORDERED_BYTES,
    MAX_UNACKED,
    MAX_WINDOW,
    PROBE_INTERVAL,
    PROBES,
    BaseDelay,
    Pacer,
    ReceiveBuffer,
    SendBuffer,
)


def filled(count: int, now: float = 0.0, size: int = 10) -> SendBuffer:
    buffer = SendBuffer()
    for number in range(count):
        buffer.add(str(number).encode().rjust(size), now)
    return buffer


def numbers(messages: list[bytes]) -> list[int]:
    return [int(message) for message in messages]


# -- sending


def test_nothing_is_due_before_its_timeout() -> None:
    buffer = filled(3)
    assert buffer.next_deadline() == pytest.approx(INITIAL_RTO)
    assert buffer.overdue(INITIAL_RTO - 0.001, 10) == []


def test_all_that_is_overdue_goes_not_only_the_oldest() -> None:
    buffer = filled(PROBES)
    assert numbers(buffer.overdue(INITIAL_RTO, 100)) == list(range(PROBES))


def test_silence_is_answered_with_a_few_probes_and_then_with_one() -> None:
    """A port that takes its time looks like loss; it must not be flooded."""
    buffer = filled(500)
    sent: list[tuple[float, int]] = []
    now = 0.0
    while now < 60.0:
        now = max(now + 1e-6, buffer.next_deadline())
        sent += [(now, number) for number in numbers(buffer.overdue(now, 1000))]

    assert [number for _, number in sent[:PROBES]] == list(range(PROBES))
    assert {number for _, number in sent[PROBES:]} == {0}
    assert len(sent) < PROBES + 62
    gaps = [b - a for (a, _), (b, _) in zip(sent[PROBES:], sent[PROBES + 1 :], strict=False)]
    assert max(gaps) <= PROBE_INTERVAL + 0.001


def test_a_prompt_answer_to_a_probe_brings_the_others_ever_faster() -> None:
    """After an outage in which everything was lost, the burst is through after a few round trips."""
    buffer = filled(500)
    buffer.overdue(0.3, 1000)
    buffer.overdue(5.0, 1000)
    now, rounds, acknowledged = 5.0, 0, 0
    waiting = [0]
    while len(buffer):
        now += 0.02
        for number in waiting:
            buffer.acknowledge(number, now)
            acknowledged += 1
        waiting = numbers(buffer.overdue(now, 1000))
        rounds += 1
        assert rounds < 15
    assert acknowledged == 500


def test_a_frame_that_three_later_ones_overtook_goes_at_once() -> None:
    buffer = filled(5)
    for number in (1, 2):
        buffer.acknowledge(number, 0.01)
        assert buffer.overdue(0.01, 10) == []
    buffer.acknowledge(3, 0.01)
    assert buffer.next_deadline() == -math.inf
    assert numbers(buffer.overdue(0.01, 10)) == [0]
    assert buffer.overdue(0.01, 10) == []


def test_one_later_acknowledgement_is_enough_after_a_round_trip() -> None:
    buffer = filled(2)
    buffer.acknowledge(1, 0.15)
    assert numbers(buffer.overdue(0.15, 10)) == [0]


def test_a_frame_sent_again_is_overtaken_only_by_what_was_sent_after_it() -> None:
    buffer = filled(8)
    for number in (1, 2, 3):
        buffer.acknowledge(number, 0.01)
    assert numbers(buffer.overdue(0.02, 10)) == [0]
    for number in (4, 5, 6):
        buffer.acknowledge(number, 0.03)
    assert buffer.overdue(0.03, 10) == []


def test_a_resent_frame_is_no_measurement() -> None:
    buffer = filled(1)
    before = buffer.round_trip.rtt
    buffer.overdue(0.2, 10)
    buffer.acknowledge(0, 3.0)
    assert buffer.round_trip.rtt == before


def test_on_a_slow_line_the_timeout_grows_beyond_the_reference_s_ceiling() -> None:
    """Capped at a second, everything on a line with a longer round trip would be sent twice, for ever."""
    buffer, now = SendBuffer(), 0.0
    resent = 0
    for number in range(200):
        buffer.add(b"x", now)
        answer = now + 1.5
        while (deadline := buffer.next_deadline()) < answer:
            now = max(now + 1e-6, deadline)
            late = len(buffer.overdue(now, 10))
            resent += late if number >= 100 else 0
        now = answer
        buffer.acknowledge(number, now)
    assert resent == 0


def test_progress_restarts_the_timer() -> None:
    buffer = filled(3)
    buffer.acknowledge(0, 0.19)
    assert buffer.overdue(0.21, 10) == []
    assert buffer.next_deadline() > 0.3


def test_an_unknown_acknowledgement_changes_nothing() -> None:
    buffer = filled(2)
    buffer.acknowledge(77, 0.1)
    buffer.acknowledge(-1, 0.1)
    assert list(buffer) == [0, 1]


def test_a_new_connection_resends_everything_in_order() -> None:
    buffer = filled(300)
    buffer.resend_all(9.0)
    assert numbers(buffer.overdue(9.0, 200)) == list(range(200))
    assert numbers(buffer.overdue(9.0, 200)) == list(range(200, 300))


def test_the_window_opens_while_the_round_trip_is_short_and_closes_when_it_is_not() -> None:
    buffer, now = SendBuffer(), 0.0
    for _ in range(200):
        buffer.add(bytes(16384), now)
        now += 0.02
        buffer.acknowledge(buffer.next_sequence - 1, now)
    assert buffer.window == MAX_WINDOW
    for _ in range(200):
        buffer.add(bytes(16384), now)
        now += 0.2
        buffer.acknowledge(buffer.next_sequence - 1, now)
    assert buffer.window == INITIAL_WINDOW


def test_tiny_frames_are_bounded_too() -> None:
    assert filled(MAX_UNACKED - 1, size=1).has_room
    assert not filled(MAX_UNACKED, size=1).has_room


def test_acknowledgements_behind_the_oldest_frame_make_no_room() -> None:
    """An agent whose port does not read refuses the next frame, and takes all others into its memory."""
    buffer = filled(MAX_UNACKED, size=1)
    for number in range(1, MAX_UNACKED):
        buffer.acknowledge(number, 0.1)
    assert not buffer.has_room
    buffer.acknowledge(0, 0.1)
    assert buffer.has_room


def test_a_longer_way_is_believed_after_a_while() -> None:
    base = BaseDelay()
    assert base.update(0.01, 0.0) == 0.01
    assert base.update(0.3, 61.0) == 0.01
    assert base.update(0.3, 122.0) == 0.3


class Sending(RuleBasedStateMachine):
    """A send buffer against a set of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = SendBuffer()
        self.now = 0.0
        self.waiting: set[int] = set()

    @rule(size=st.integers(1, 5000))
    def add(self, size: int) -> None:
        self.waiting.add(self.buffer.next_sequence)
        self.buffer.add(bytes(size), self.now)

    @rule(number=st.integers(-1, 60))
    def acknowledge(self, number: int) -> None:
        self.buffer.acknowledge(number, self.now)
        self.waiting.discard(number)

    @rule(step=st.floats(0, 10))
    def wait(self, step: float) -> None:
        self.now += step

    @rule(most=st.integers(0, 5))
    def resend(self, most: int) -> None:
        assert len(self.buffer.overdue(self.now, most)) <= min(most, len(self.waiting))

    @rule()
    def reconnect(self) -> None:
        self.buffer.resend_all(self.now)

    @invariant()
    def counts_what_waits(self) -> None:
        assert set(self.buffer) == self.waiting
        assert (self.buffer.unacked_bytes > 0) == bool(self.waiting)

    @invariant()
    def what_waits_has_a_deadline(self) -> None:
        deadline = self.buffer.next_deadline()
        assert (deadline < math.inf) == bool(self.waiting)
        if self.waiting:
            assert deadline <= self.now + MAX_BACKOFF


TestSending = Sending.TestCase


# -- receiving


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=10))
def test_whatever_the_order_frames_are_delivered_once_and_in_order(
    order: list[int], again: list[int]
) -> None:
    buffer: ReceiveBuffer[int] = ReceiveBuffer()
    delivered: list[int] = []
    for number in [*order, *again]:
        if buffer.is_next(number):
            buffer.advance()
            delivered.append(number)
            while (early := buffer.pop()) is not None:
                delivered.append(early)
        else:
            # Duplicates are acknowledged again: the first acknowledgement may be lost.
            assert buffer.keep(number, number, 1)
    assert delivered == list(range(12))
    assert (buffer.expected, buffer.buffered, buffer.duplicates) == (12, 0, len(again))


def test_what_does_not_fit_is_not_acknowledged() -> None:
    buffer: ReceiveBuffer[str] = ReceiveBuffer()
    assert buffer.keep(1, "", MAX_REORDERED_BYTES)
    assert not buffer.keep(2, "", 1)
    buffer.advance()
    assert buffer.pop() == ""
    assert buffer.keep(3, "", 1)


def test_a_negative_number_is_nobody_s() -> None:
    buffer: ReceiveBuffer[str] = ReceiveBuffer()
    assert not buffer.keep(-1, "", 1)


# -- the pace


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_no_second_has_more_frames_than_the_pace_and_a_burst(seed: int) -> None:
    rng = random.Random(seed)
    pacer = Pacer(900, 45)
    now, sent = 100.0, list[float]()
    while now < 104.0:
        count = min(pacer.available(now), rng.randint(0, 100))
        pacer.spend(count)
        sent += [now] * count
        now += rng.random() * 0.05
    for start in sent[::50]:
        assert sum(start <= when < start + 1 for when in sent) <= 945


def test_the_next_token_is_there_when_it_was_promised() -> None:
    pacer = Pacer(900, 1)
    now = 12345.678
    for _ in range(1000):
        assert pacer.available(now) >= 1
        pacer.spend(1)
        assert pacer.available(now) == 0
        now = pacer.next_token(now)
