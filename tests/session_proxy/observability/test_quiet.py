"""What is told of a flood."""

from __future__ import annotations

import pytest

from session_proxy.observability import quiet
from session_proxy.observability.quiet import Quiet


def test_one_of_a_kind_passes_and_tells_of_the_others() -> None:
    once = Quiet[str](10)
    assert once.passes("a", "", 0) == 0
    assert [once.passes("a", "", now) for now in (0, 1, 9.9)] == [None] * 3
    assert once.passes("b", "", 1) == 0
    assert once.passes("a", "", 10) == 3
    assert once.passes("a", "", 19) is None
    assert once.passes("a", "", 30) == 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "MOST_KINDS", 2)
    once = Quiet[str](10)
    for kind in "abc":
        assert once.passes(kind, "", 0) == 0
    assert once.passes("c", "", 1) is None
    assert once.passes("b", "", 1) is None
    assert once.passes("a", "", 1) == 0


def test_what_was_counted_is_told_where_no_more_comes() -> None:
    once = Quiet[str](10)
    for now, item in enumerate(("first", "second", "third")):
        once.passes("a", item, now)
    once.passes("b", "only", 5)
    assert once.overdue(9) == []
    assert once.overdue(10) == [("third", 1)]
    assert once.overdue(30) == []
    # As if one had been told then: it is quiet again for a while.
    once.passes("a", "first", 40)
    once.passes("a", "last", 41)
    once.passes("b", "last", 41)
    assert once.overdue() == [("last", 0)]
    assert once.overdue() == []


def test_what_was_counted_of_a_kind_that_is_forgotten_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "MOST_KINDS", 1)
    once = Quiet[str](10)
    for item in ("first", "second"):
        once.passes("a", item, 0)
    once.passes("b", "other", 0)
    assert once.overdue(0) == [("second", 0)]
    assert once.overdue(0) == []
