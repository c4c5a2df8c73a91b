from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.rotation import (
    LONGEST_REST,
    PROVEN,
    REST_ON_DEMAND,
    SLOW_REST_ON_DEMAND,
    Attempt,
    Resolve,
    Rest,
    Rotation,
)


def rotation(*entries: str) -> Rotation:
    """Return a rotation over plain ids, each resolved to itself."""
    made = Rotation(entries, random.Random(1))
    for entry in entries:
        made.resolved(entry, (entry,), 0.0)
    return made


def test_entries_are_resolved_when_it_is_their_turn() -> None:
    """A tag further down the list costs nothing while a better entry works."""
    made = Rotation(("i-1", "tag:Role=bastion"), random.Random(1))

    assert made.next_step(0.0) == Resolve("i-1")
    made.resolved("i-1", ("i-1",), 0.0)
    assert made.next_step(0.0) == Attempt("i-1")
    made.failed("i-1", "no", 0.0)
    assert made.next_step(0.0) == Resolve("tag:Role=bastion")
    made.resolved("tag:Role=bastion", ("i-7", "i-8"), 0.0)
    assert made.next_step(0.0) == Attempt("i-7")
    made.failed("i-7", "no", 0.0)
    assert made.next_step(0.0) == Attempt("i-8")


def test_rests_double_with_jitter_up_to_a_minute() -> None:
    """1 to 2 s, then twice as long each time; a minute at most."""
    made = rotation("i-1")

    rests = [made.failed("i-1", "no", 0.0) for _ in range(12)]

    for attempt, rest in enumerate(rests[:5]):
        assert 2**attempt <= rest <= 2 ** (attempt + 1)
    assert all(LONGEST_REST / 2 <= rest <= LONGEST_REST for rest in rests[5:])
    assert len(set(rests)) == len(rests)


def test_the_first_retry_after_a_proven_link_comes_at_once() -> None:
    made = rotation("i-1")

    assert made.lost("i-1", "cut", 100.0, lived=PROVEN) == 0.0
    assert made.next_step(100.0) == Attempt("i-1")
    assert not made.exhausted


def test_a_link_that_dies_young_counts_as_a_failure() -> None:
    """An instance that accepts and drops us is not asked in a tight loop."""
    made = rotation("i-1")

    assert made.lost("i-1", "cut", 100.0, lived=PROVEN / 2) > 1
    step = made.next_step(100.0)
    assert isinstance(step, Rest)
    assert made.exhausted


def test_rest_ends_with_the_first_instance_that_has_rested() -> None:
    made = rotation("i-1", "i-2")
    first = made.failed("i-1", "no", 0.0)
    second = made.failed("i-2", "no", 0.0, slow=True)

    # All have failed, so they are resolved anew when their rests end.
    assert second > first
    assert made.next_step(0.0) == Rest(first)
    assert made.next_step(first) == Resolve("i-1")


def test_a_tag_is_asked_again_when_all_its_instances_failed() -> None:
    """The machine behind a tag may have been replaced."""
    made = Rotation(("tag:a=b",), random.Random(1))
    made.resolved("tag:a=b", ("i-1",), 0.0)
    made.failed("i-1", "gone", 0.0)

    assert made.exhausted
    assert made.next_step(0.0) == Resolve("tag:a=b")
    made.resolved("tag:a=b", ("i-2",), 0.0)
    assert made.next_step(0.0) == Attempt("i-2")
    assert made.reason() == ""


def test_a_tag_that_matches_nothing_rests() -> None:
    made = Rotation(("tag:a=b",), random.Random(1))
    made.failed("tag:a=b", "nothing has it", 5.0)

    assert made.exhausted
    assert made.reason() == "tag:a=b: nothing has it"
    step = made.next_step(5.0)
    assert isinstance(step, Rest)
    assert 6 <= step.until <= 7


def test_what_a_tag_means_is_remembered_for_a_while() -> None:
    made = Rotation(("tag:a=b",), random.Random(1))
    made.resolved("tag:a=b", ("i-1",), 0.0)

    assert made.next_step(299.0) == Attempt("i-1")
    assert made.next_step(300.0) == Resolve("tag:a=b")


def test_demand_shortens_rests() -> None:
    """A person who clicks does not wait out a minute; errors that need a person are repeated less often."""
    made = rotation("i-1", "i-2")
    made.failed("i-1", "no permission", 0.0, slow=True)
    for _ in range(8):
        made.failed("i-2", "no answer", 0.0)
    assert not made.needs_person

    made.demand(1.0)

    assert made.next_step(1.0) == Rest(REST_ON_DEMAND)
    made.failed("i-2", "no permission", REST_ON_DEMAND, slow=True)
    assert made.needs_person
    made.demand(REST_ON_DEMAND)
    assert made.next_step(REST_ON_DEMAND) == Rest(SLOW_REST_ON_DEMAND)


def test_success_clears_the_reason_only() -> None:
    made = rotation("i-1")
    made.failed("i-1", "no", 0.0)
    made.succeeded("i-1")

    assert made.reason() == ""
    # Whether it was worth anything is known when the link ends.
    assert 2 <= made.lost("i-1", "cut", 1.0, lived=1.0) <= 4


@given(
    st.lists(st.tuples(st.sampled_from(["fail", "slow", "lose", "demand"]), st.floats(0, 100)), max_size=40)
)
def test_it_never_stands_still_for_more_than_a_minute(events: list[tuple[str, float]]) -> None:
    """Whatever happens, there is always a next attempt, at most a minute away."""
    made = Rotation(("tag:a=b", "i-9"), random.Random(7))
    now = 0.0
    for event, pause in events:
        now += pause
        step = made.next_step(now)
        match step:
            case Resolve(entry):
                made.resolved(entry, ("i-1", "i-2") if entry.startswith("tag") else (entry,), now)
            case Rest(until):
                assert now < until <= now + LONGEST_REST
                if event == "demand":
                    made.demand(now)
            case Attempt(instance):
                if event == "lose":
                    made.lost(instance, "cut", now, lived=pause)
                else:
                    made.failed(instance, "no", now, slow=event == "slow")
    last = made.next_step(now)
    assert not (isinstance(last, Rest) and math.isinf(last.until))
