"""What a relay writes into the requests that it refuses."""

from __future__ import annotations

import pytest

from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.refusal import read_refusal, write_refusal


def test_a_refusal_says_why() -> None:
    assert read_refusal(write_refusal(Reason.LIMIT, "too many")) == (Reason.LIMIT, "too many")
    assert read_refusal(b"\x00\xffmore") == (Reason.UNSPECIFIED, "more")


@pytest.mark.parametrize("request_", [b"ssh", b"", b"\x00", b"host:22"])
def test_what_is_none(request_: bytes) -> None:
    assert read_refusal(request_) is None
