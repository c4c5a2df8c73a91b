"""What is said of the end of a connection."""

from __future__ import annotations

import pytest
import trio

from awg_obfs.quic.errors import Cause, ConnectionFailure, ConnectionLostError, StreamResetError


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (ConnectionFailure(Cause.IDLE), "nothing heard from the peer"),
        (ConnectionFailure(Cause.PEER_CLOSED, 5), "closed by the peer: code 0x5"),
        (ConnectionFailure(Cause.PROTOCOL, 1, "bad frame"), "QUIC went wrong: bad frame (code 0x1)"),
    ],
)
def test_a_failure_says_its_cause_and_what_was_exchanged(failure: ConnectionFailure, text: str) -> None:
    assert str(failure) == text
    assert str(ConnectionLostError(failure)) == text


def test_both_errors_are_what_streams_raise() -> None:
    assert issubclass(ConnectionLostError, trio.BrokenResourceError)
    assert isinstance(StreamResetError(7), trio.BrokenResourceError)
    assert str(StreamResetError(255)) == "the peer reset the stream with code 0xff"
