"""When a path is silent, and when it has come back."""

from __future__ import annotations

from awg_obfs.quic.liveness import PROBE_INTERVAL, Finding, PathWatch


def test_a_client_probes_after_a_second_and_tells_after_two() -> None:
    watch = PathWatch(1.0, 2.0, heard_at=10.0)
    assert watch.next_timer() == 11.0
    assert watch.handle_timer(10.9) is Finding.NOTHING
    assert watch.handle_timer(11.0) is Finding.PROBE
    assert watch.next_timer() == 11.0 + PROBE_INTERVAL
    assert watch.handle_timer(11.5) is Finding.PROBE
    assert watch.handle_timer(12.0) is Finding.PROBE_AND_TELL
    assert watch.silent
    assert watch.handle_timer(12.1) is Finding.NOTHING
    assert watch.handle_timer(12.5) is Finding.PROBE


def test_probes_keep_their_pace_however_long_the_silence_is() -> None:
    watch = PathWatch(1.0, 2.0, heard_at=0.0)
    probes = 0
    while (due := watch.next_timer()) is not None and due < 60:
        probes += watch.handle_timer(due) is not Finding.NOTHING
    assert probes == 118


def test_the_answer_to_a_first_probe_is_no_return() -> None:
    watch = PathWatch(1.0, 2.0, heard_at=0.0)
    assert not watch.heard(0.5)
    assert not watch.heard(1.6)
    assert watch.heard(3.2)


def test_a_server_only_listens() -> None:
    watch = PathWatch(0.0, 2.0, heard_at=0.0)
    assert watch.next_timer() is None
    assert watch.handle_timer(100.0) is Finding.NOTHING
    assert not watch.heard(1.9)
    assert watch.heard(4.0)
