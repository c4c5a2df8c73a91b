"""What is told of a flood."""

from __future__ import annotations

import pytest

from session_proxy.observability import quiet
from session_proxy.observability.quiet import Quiet


def test_one_of_a_kind_passes_and_tells_of_the_others() -> None:
    once = Quiet(10)
    assert once.passes("a", 0) == 0
    assert [once.passes("a", now) for now in (0, 1, 9.9)] == [None] * 3
    assert once.passes("b", 1) == 0
    assert once.passes("a", 10) == 3
    assert once.passes("a", 19) is None
    assert once.passes("a", 30) == 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "MOST_KINDS", 2)
    once = Quiet(10)
    for kind in "abc":
        assert once.passes(kind, 0) == 0
    assert once.passes("c", 1) is None
    assert once.passes("b", 1) is None
    assert once.passes("a", 1) == 0
