from __future__ import annotations

from awg_obfs.protocol.load import (
    HANDSHAKES_PER_SECOND,
    MAX_SENDERS,
    PER_SENDER_BURST,
    PER_SENDER_RATE,
    QUEUED_UNDER_LOAD,
    LoadGauge,
    SenderLimits,
)


def test_a_burst_is_a_load_for_a_second() -> None:
    gauge = LoadGauge()

    assert not any(gauge.add_message(5.0) for _ in range(QUEUED_UNDER_LOAD - 1))
    assert gauge.add_message(5.0)
    assert gauge.add_message(5.9)
    assert not gauge.add_message(6.5)


def test_what_can_be_kept_up_with_is_no_load() -> None:
    gauge = LoadGauge()

    assert not any(gauge.add_message(number / HANDSHAKES_PER_SECOND) for number in range(2000))
    assert any(gauge.add_message(9 + number / (2 * HANDSHAKES_PER_SECOND)) for number in range(2000))


def test_a_load_can_be_assumed() -> None:
    gauge = LoadGauge()
    gauge.assume(20.0)

    assert gauge.add_message(19.9)
    assert not gauge.add_message(20.0)


def test_a_sender_has_a_burst_and_then_its_rate() -> None:
    limits = SenderLimits()

    assert sum(limits.allow(b"a", 1.0) for _ in range(20)) == PER_SENDER_BURST
    assert limits.allow(b"b", 1.0)
    assert not limits.allow(b"a", 1.0 + 0.5 / PER_SENDER_RATE)
    assert limits.allow(b"a", 1.0 + 1.1 / PER_SENDER_RATE)
    assert sum(limits.allow(b"a", 10.0) for _ in range(20)) == PER_SENDER_BURST


def test_senders_are_forgotten_in_time_and_in_number() -> None:
    limits = SenderLimits()
    for number in range(3 * MAX_SENDERS):
        assert limits.allow(number.to_bytes(4, "big"), 1.0)
    assert len(limits._buckets) == MAX_SENDERS

    limits.allow(b"late", 2.0)
    assert len(limits._buckets) == 1
