from __future__ import annotations

from awg_obfs.protocol.tai64n import LENGTH, later_stamp, stamp

TIME = 1_765_497_600_000_000_000


def test_a_stamp_is_seconds_and_blurred_nanoseconds() -> None:
    assert stamp(TIME).hex() == "40000000693b5b0a" + "00000000"
    assert stamp(TIME + 0x1234567).hex() == "40000000693b5b0a" + "01000000"


def test_stamps_compare_as_times_do() -> None:
    times = [TIME, TIME + 50_000_000, TIME + 1_000_000_000, TIME + 300_000_000_000]
    stamps = [stamp(time) for time in times]

    assert stamps == sorted(set(stamps))


def test_a_later_stamp_is_the_next_one_possible() -> None:
    later = later_stamp(stamp(TIME))

    assert len(later) == LENGTH
    assert stamp(TIME) < later == stamp(TIME + 0x1000000)
    assert later_stamp(stamp(TIME + 999_999_999)) > stamp(TIME + 999_999_999)
