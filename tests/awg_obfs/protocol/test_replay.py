from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.replay import SLOTS, WINDOW, ReplayWindow


def accept(window: ReplayWindow, counter: int) -> bool:
    new = window.is_new(counter)
    if new:
        window.mark(counter)
    return new


def test_counters_are_accepted_once_in_any_order() -> None:
    window = ReplayWindow()

    assert [accept(window, counter) for counter in (0, 2, 1, 1, 2, 0, 3)] == [True] * 3 + [False] * 3 + [True]


def test_what_is_too_old_to_be_remembered_is_refused() -> None:
    window = ReplayWindow()
    window.mark(WINDOW + 10)

    assert window.is_new(10)
    assert not window.is_new(9)


def test_a_leap_forgets_all_that_was_before() -> None:
    window = ReplayWindow()
    window.mark(5)
    window.mark(5 + 10 * SLOTS)

    assert not window.is_new(5)
    assert window.is_new(5 + 10 * SLOTS - WINDOW)
    assert not window.is_new(5 + 10 * SLOTS)


counters = st.one_of(
    st.integers(0, 40),
    st.integers(WINDOW - 20, SLOTS + 20),
    st.integers(2 * SLOTS - 20, 2 * SLOTS + 20),
    st.integers(0, 1 << 60),
)


@given(st.lists(counters, max_size=60))
def test_it_agrees_with_a_set(received: list[int]) -> None:
    window, accepted = ReplayWindow(), set[int]()
    for counter in received:
        too_old = bool(accepted) and max(accepted) - counter > WINDOW
        expected = counter not in accepted and not too_old
        assert accept(window, counter) == expected
        if expected:
            accepted.add(counter)


@given(st.permutations(range(200)), st.integers(0, SLOTS))
def test_every_order_of_a_run_is_accepted_whole(order: list[int], start: int) -> None:
    window = ReplayWindow()

    assert all(accept(window, start + number) for number in order)
    assert not any(accept(window, start + number) for number in order)
