"""When an end that was sent is in doubt."""

from __future__ import annotations

from awg_obfs.quic.ends import Ends


def test_nothing_is_in_doubt_while_nothing_is_lost() -> None:
    ends = Ends()
    assert not ends.any
    ends.wrote(0, 10)
    ends.ended(0, 3)
    assert ends.any
    assert ends.take_doubtful(3) == []
    assert ends.any


def test_a_loss_puts_every_end_in_doubt_once_with_what_came_before_it() -> None:
    ends = Ends()
    ends.wrote(0, 10)
    ends.wrote(0, 5)
    ends.wrote(4, 7)
    ends.ended(0, 0)
    ends.ended(8, 0)
    assert ends.take_doubtful(1) == [(0, 15), (8, 0)]
    assert not ends.any
    assert ends.take_doubtful(2) == []


def test_losses_before_the_end_was_sent_do_not_count() -> None:
    ends = Ends()
    ends.ended(0, 0)
    ends.take_doubtful(5)
    ends.ended(4, 5)
    assert ends.take_doubtful(5) == []
    assert ends.take_doubtful(6) == [(4, 0)]


def test_what_is_over_is_forgotten() -> None:
    ends = Ends()
    ends.wrote(0, 1)
    ends.ended(0, 0)
    ends.wrote(4, 1)
    ends.forget(0)
    ends.forget(4)
    ends.ended(4, 0)
    assert ends.take_doubtful(1) == [(4, 0)]
