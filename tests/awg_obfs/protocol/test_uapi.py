"""What the vectors of test_awg_vectors.py do not reach: peers, keys, and lines that are not UTF-8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.parameters import KEYS
from awg_obfs.protocol.uapi import MAX_LINE, Configuration, Errno

KEY = "00" * 31 + "01"
LINES = st.lists(
    st.sampled_from([f"{key}={value}" for key in KEYS for value in ("1", "0", "9-12", "<r 2>", "<b 0>", "")])
    | st.text(max_size=8)
).map("\n".join)


@pytest.mark.parametrize(
    "line",
    [
        f"private_key={KEY}",
        "listen_port=51820",
        "fwmark=0",
        "replace_peers=true",
        f"public_key={KEY}\npreshared_key={KEY}\nendpoint=192.0.2.1:51820\nallowed_ip=10.0.0.1/32",
        f"public_key={KEY}\nendpoint=[2001:db8::1]:51820\nallowed_ip=-10.0.0.0/8\nallowed_ip=::/0",
        f"public_key={KEY}\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\nprotocol_version=1",
        f"public_key={KEY}\nupdate_only=true\nremove=true",
    ],
)
def test_what_is_no_obfuscation_is_accepted_and_has_no_effect(line: str) -> None:
    configuration = Configuration()

    assert configuration.set(line) is Errno.OK
    assert configuration.get() == ["h1=1", "h2=2", "h3=3", "h4=4"]


@pytest.mark.parametrize(
    "line",
    [
        "private_key=00",
        "listen_port=65536",
        "fwmark=x",
        "replace_peers=false",
        "public_key=xyz",
        f"public_key={KEY}\nendpoint=192.0.2.1",
        f"public_key={KEY}\nendpoint=example.com:51820",
        f"public_key={KEY}\nendpoint=[192.0.2.1]:5",
        f"public_key={KEY}\nallowed_ip=10.0.0.1",
        f"public_key={KEY}\nallowed_ip=10.0.0.1/33",
        f"public_key={KEY}\nallowed_ip=10.0.0.0/255.0.0.0",
        f"public_key={KEY}\nallowed_ip=10.0.0.0/08",
        f"public_key={KEY}\nallowed_ip=fe80::1%lo/64",
        f"public_key={KEY}\nprotocol_version=2",
        f"public_key={KEY}\nlisten_port=5",
    ],
)
def test_what_is_wrong_there_is_invalid(line: str) -> None:
    assert Configuration().set(line) is Errno.INVALID


def test_a_line_that_is_too_long_ends_the_operation_and_leaves_what_came_before() -> None:
    configuration = Configuration()

    assert configuration.set("jc=3\n" + "i1=" + "x" * MAX_LINE + "\njc=4\n") is Errno.IO
    assert configuration.get()[0] == "jc=3"
    # The check at the end is done all the same, and tells first.
    assert configuration.set("h1=2\n" + "x" * MAX_LINE) is Errno.INVALID


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    configuration = Configuration()

    assert configuration.set(b"i1=\xff<b 0x12>\n") is Errno.OK
    assert configuration.get()[-1].encode("utf-8", "surrogateescape") == b"i1=\xff<b 0x12>"


@given(operation=LINES | st.binary())
def test_any_operation_ends_with_a_number(operation: str | bytes) -> None:
    configuration = Configuration()

    assert configuration.set(operation) in Errno
    again = Configuration()
    again.set("\n".join(configuration.get()))
    assert again.parameters.headers == configuration.parameters.headers
