"""What is said of streams that do not come about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.errors import (
    ChannelRefusedError,
    HostKeyError,
    KnownHostsError,
    SshAuthenticationError,
    SshError,
    SshHandshakeError,
    SshKeyError,
)
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.requests import Status
from tunnel_relay.relay_stream import StreamRefusedError, StreamResetError
from tunnel_relay.server.refusals import no_connection, not_done, read_target, refused_channel


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("db.example:5432", ("db.example", 5432)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("bücher.example:80", ("bücher.example", 80)),
    ],
)
def test_a_target_is_read(text: str, target: tuple[str, int]) -> None:
    assert read_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "db",
        "db:",
        ":80",
        "db:0",
        "db:65536",
        "db:+80",
        "db:8_0",
        "db:٨٠",
        "db:" + "9" * 5000,
        "::1:80",
        "[]:80",
        "a b:80",
        "a\n:80",
        "x" * 300 + ":80",
    ],
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(StreamRefusedError, match=r"is no HOST:PORT") as caught:
        read_target(text)
    assert caught.value.reason is Reason.NO_SUCH_SERVICE
    assert len(caught.value.detail) < 500


@given(st.text(max_size=40))
def test_anything_is_a_target_or_none(text: str) -> None:
    try:
        host, port = read_target(text)
    except StreamRefusedError:
        return
    assert host
    assert 0 < port < 65536


@pytest.mark.parametrize(
    ("code", "description", "reason"),
    [
        (1, "no forwarding", Reason.NOT_ALLOWED),
        (2, "Connection refused", Reason.REFUSED),
        (2, "Connection timed out", Reason.TIMED_OUT),
        (2, "Network is unreachable", Reason.UNREACHABLE),
        (2, "Name or service not known", Reason.UNREACHABLE),
        (2, "Operation not permitted", Reason.NOT_ALLOWED),
        (2, "", Reason.UNREACHABLE),
        (3, "what?", Reason.NOT_ALLOWED),
        (4, "full", Reason.LIMIT),
        (99, "refused", Reason.REFUSED),
    ],
)
def test_why_a_channel_was_refused(code: int, description: str, reason: Reason) -> None:
    refused = refused_channel(ChannelRefusedError(code, description))
    assert refused.reason is reason
    assert (description or f"code {code}") in refused.detail


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (SshHandshakeError("no agreement"), Reason.UNREACHABLE),
        (StreamRefusedError(Reason.NO_SUCH_SERVICE, "no service"), Reason.UNREACHABLE),
        (StreamRefusedError(Reason.LIMIT, "too many"), Reason.LIMIT),
        (StreamRefusedError(Reason.NOT_ALLOWED, "not you"), Reason.UNREACHABLE),
        (StreamResetError(Reason.SESSION_LOST, "gone"), Reason.UNREACHABLE),
    ],
)
def test_why_there_is_no_connection(
    exc: SshHandshakeError | StreamRefusedError | StreamResetError, reason: Reason
) -> None:
    refused = no_connection("nas", exc)
    assert (refused.reason, refused.detail) == (reason, f"no SSH connection to the agent 'nas': {exc}")


@pytest.mark.parametrize("kind", [HostKeyError, SshAuthenticationError, SshKeyError, KnownHostsError])
def test_which_files_a_relay_has_is_not_told(kind: type[SshError]) -> None:
    refused = no_connection("nas", kind("/etc/relay/alice.key is wrong"))
    assert "/" not in refused.detail
    assert refused.detail.endswith("the relay's log says more")


@pytest.mark.parametrize("reason", Reason)
def test_a_request_that_found_no_stream_was_not_done(reason: Reason) -> None:
    error = not_done(StreamRefusedError(reason, "so"))
    assert error.status not in (Status.DONE, Status.BROKEN)
    assert str(error) == "so"
