from __future__ import annotations

import pytest

from session_proxy.profile.awg_mtu import PathMtu, path_mtu_of, with_mtu

ADDRESS = ("Address", "10.8.1.2/32")


@pytest.mark.parametrize(
    ("text", "s4", "ipv6", "path"),
    [
        # A header and a tag of 16 bytes, and those of UDP and IP; S4 comes on top.
        ("1420", 0, False, 1480),
        ("1376", 0, False, 1436),
        ("1376", 14, False, 1450),
        ("1376", 14, True, 1470),
        ("1440", 0, False, 1500),
        ("1220", 0, False, 1280),
    ],
)
def test_the_path_takes_a_packet_and_what_is_around_it(text: str, s4: int, ipv6: bool, path: int) -> None:
    kept = (("MTU", "1"), ADDRESS, ("MTU", text))

    assert path_mtu_of(kept, s4, ipv6=ipv6) == PathMtu(path)
    assert with_mtu(kept, path, s4, ipv6=ipv6) == kept
    assert with_mtu((ADDRESS,), path, s4, ipv6=ipv6) in ((ADDRESS, ("MTU", text)), (ADDRESS,))


def test_without_one_nothing_is_said_of_the_path() -> None:
    assert path_mtu_of((ADDRESS,), 20, ipv6=False) == PathMtu(1500)
    assert with_mtu((ADDRESS,), 1500, 20, ipv6=False) == (ADDRESS,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("auto", "is no number of bytes"),
        ("-5", "is no number of bytes"),
        ("9" * 5000, "is no number of bytes"),
        ("1500", "1500 needs a path of 1560 bytes"),
        ("8920", "8920 needs a path of 8980 bytes"),
        ("1219", "1219 leaves QUIC less than it needs"),
    ],
)
def test_what_cannot_be_taken_over_is_said(text: str, said: str) -> None:
    found = path_mtu_of((("MTU", text),), 0, ipv6=False)

    assert found.value == 1500
    assert found.warning == (
        f"[Interface] MTU: {said}, and mtu stays 1500; write the path's own where it is another"
    )
    assert with_mtu((("MTU", text),), 1500, 0, ipv6=False) == (("MTU", text),)


def test_another_mtu_takes_the_place_of_what_was_imported() -> None:
    assert with_mtu((("MTU", "1376"), ADDRESS), 1400, 0, ipv6=False) == (ADDRESS, ("MTU", "1340"))
    assert with_mtu((("MTU", "1376"), ADDRESS), 1500, 0, ipv6=True) == (ADDRESS, ("MTU", "1420"))
