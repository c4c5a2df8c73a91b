"""When qh3's news have to wait."""

from __future__ import annotations

from awg_obfs.quic.deferral import FRAMES_AHEAD, Deferral


def test_nothing_waits_while_everything_leaves() -> None:
    deferral = Deferral()
    deferral.ended(0)
    deferral.flushed(3, blocked=False)
    deferral.received()
    assert deferral.due


def test_nothing_waits_while_no_stream_is_about_to_finish() -> None:
    deferral = Deferral()
    deferral.flushed(3, blocked=True)
    deferral.received()
    assert deferral.due
    deferral.ended(0)
    assert not deferral.due
    deferral.finished(0)
    assert deferral.due


def test_news_wait_for_room() -> None:
    deferral = Deferral()
    deferral.ended(0)
    deferral.flushed(3, blocked=True)
    assert deferral.due
    deferral.received()
    assert not deferral.due
    deferral.flushed(1, blocked=False)
    assert deferral.due


def test_news_wait_no_longer_than_what_was_built_before_them() -> None:
    """A bulk transfer keeps the window full for as long as it lasts."""
    deferral = Deferral()
    deferral.ended(0)
    deferral.flushed(100, blocked=True)
    deferral.received()
    deferral.flushed(FRAMES_AHEAD - 1, blocked=True)
    deferral.received()
    assert not deferral.due
    deferral.flushed(1, blocked=True)
    assert deferral.due
    deferral.asked()
    deferral.received()
    assert not deferral.due
