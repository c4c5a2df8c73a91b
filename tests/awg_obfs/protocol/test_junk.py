from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.junk import decoys, junk_packets
from awg_obfs.protocol.parameters import Parameters, parameters_from_mapping
from tests.support.awg import RecordedRandomness


@given(count=st.integers(0, 20), smallest=st.integers(0, 100), spread=st.integers(0, 300), seed=st.text())
def test_junk_keeps_its_bounds(count: int, smallest: int, spread: int, seed: str) -> None:
    packets = junk_packets(count, smallest, smallest + spread, RecordedRandomness(seed=seed))

    assert len(packets) == count
    assert all(smallest <= len(packet) <= smallest + spread for packet in packets)


def test_both_bounds_are_reached() -> None:
    lengths = {len(packet) for packet in junk_packets(200, 5, 7, RecordedRandomness(seed="bounds"))}

    assert lengths == {5, 6, 7}


def test_equal_bounds_draw_no_length_and_nothing_draws_no_content() -> None:
    random = RecordedRandomness(seed="x")

    assert [len(packet) for packet in junk_packets(3, 0, 0, random)] == [0, 0, 0]
    assert random.reads == []
    assert [len(packet) for packet in junk_packets(2, 9, 9, random)] == [9, 9]
    assert len(random.reads) == 2


def test_bounds_the_wrong_way_round_make_nothing() -> None:
    with pytest.raises(ValueError, match="no number below"):
        junk_packets(1, 9, 8, RecordedRandomness(seed="x"))


def test_signature_packets_come_first_in_the_order_of_their_numbers() -> None:
    parameters = parameters_from_mapping(
        {"i5": "<b 0x05>", "i1": "<b 0x01>", "i3": "<r 1>", "jc": 2, "jmax": 2, "jmin": 2}
    )
    random = RecordedRandomness(data=bytes.fromhex("aa bbbb cccc"))

    assert [packet.hex() for packet in decoys(parameters, random, lambda: 0)] == [
        "01",
        "aa",
        "05",
        "bbbb",
        "cccc",
    ]


def test_the_counter_counts_the_signature_packets_too() -> None:
    parameters = parameters_from_mapping({"i1": "<c>", "i2": "<b 0x00>", "i4": "<c>"})
    packets = decoys(parameters, RecordedRandomness(), lambda: 0, counter=7)

    assert [packet.hex() for packet in packets] == ["00000007", "00", "00000009"]


def test_plain_wireguard_sends_nothing_in_front() -> None:
    assert decoys(Parameters(), RecordedRandomness(), lambda: 0) == []
