from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.sizes import (
    QUIC_SMALLEST,
    TRANSPORT_OVERHEAD,
    largest_s4,
    packet_mtu,
    path_mtu_for,
    quic_datagram_size,
    udp_payload,
    zero_fill,
)

PATHS = st.integers(576, 65535)


@given(length=st.integers(0, 65535))
def test_plaintexts_are_filled_to_sixteen_bytes(length: int) -> None:
    assert (length + zero_fill(length, 0)) % 16 == 0
    assert 0 <= zero_fill(length, 0) < 16


@given(mtu=st.integers(1, 2000), length=st.integers(0, 2000))
def test_the_fill_does_not_go_beyond_the_mtu(mtu: int, length: int) -> None:
    fill = zero_fill(length, mtu)

    assert 0 <= fill < 16
    assert length > mtu or length + fill <= mtu


@given(path_mtu=PATHS, s4=st.integers(0, 300), ipv6=st.booleans(), mtu=st.integers(0, 2000))
def test_a_full_quic_datagram_passes_the_path_in_one_piece(
    path_mtu: int, s4: int, ipv6: bool, mtu: int
) -> None:
    size = quic_datagram_size(path_mtu, s4, ipv6=ipv6)
    whole = s4 + TRANSPORT_OVERHEAD + size

    assert whole + zero_fill(size, 0) <= udp_payload(path_mtu, ipv6=ipv6)
    assert whole + 16 > udp_payload(path_mtu, ipv6=ipv6)


@given(path_mtu=PATHS, s4=st.integers(0, 300), ipv6=st.booleans())
def test_a_path_takes_packets_and_what_is_around_them(path_mtu: int, s4: int, ipv6: bool) -> None:
    assert path_mtu_for(packet_mtu(path_mtu, s4, ipv6=ipv6), s4, ipv6=ipv6) == path_mtu


def test_the_usual_mtu_of_a_tunnel_fits_ethernet() -> None:
    """awg-quick(8) takes 1420: the longer header of IPv6, and nothing for S4."""
    assert packet_mtu(1500, 0, ipv6=True) == 1420


@given(path_mtu=PATHS, ipv6=st.booleans())
def test_the_largest_s4_is_the_last_that_leaves_quic_enough(path_mtu: int, ipv6: bool) -> None:
    s4 = largest_s4(path_mtu, ipv6=ipv6)

    assert quic_datagram_size(path_mtu, s4, ipv6=ipv6) >= QUIC_SMALLEST
    assert quic_datagram_size(path_mtu, s4 + 1, ipv6=ipv6) < QUIC_SMALLEST


@pytest.mark.parametrize(("path_mtu", "ipv6", "s4"), [(1280, False, 20), (1280, True, 0), (1500, False, 240)])
def test_paths_that_are_met(path_mtu: int, ipv6: bool, s4: int) -> None:
    assert largest_s4(path_mtu, ipv6=ipv6) == s4
