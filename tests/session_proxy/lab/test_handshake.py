from __future__ import annotations

import json

import pytest

from session_proxy.lab.documents import PORT_FORWARDING, SSH, PortSession
from session_proxy.lab.faults import Faults
from session_proxy.lab.handshake import (
    ClientAbilities,
    HandshakeError,
    UnreadableResponseError,
    parse_response,
    render_complete,
    render_request,
)


def test_a_request_names_the_session_and_nothing_else() -> None:
    payload = render_request(PortSession(SSH, None, 22), Faults())

    assert payload == (
        b'{"AgentVersion":"3.3.987.0","RequestedClientActions":[{"ActionType":"SessionType",'
        b'"ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}'
    )


def test_faults_ask_for_more() -> None:
    faults = Faults(kms_action=True, unknown_action=True)
    request = json.loads(render_request(PortSession(PORT_FORWARDING, None, 80), faults))
    kinds = [action["ActionType"] for action in request["RequestedClientActions"]]

    assert kinds == ["SessionType", "KMSEncryption", "Teleportation"]


def test_completion_counts_nanoseconds() -> None:
    assert render_complete(0.25, "hi") == b'{"HandshakeTimeToComplete":250000000,"CustomerMessage":"hi"}'


def response(*actions: object, version: object = "1.2.0.0") -> bytes:
    return json.dumps({"ClientVersion": version, "ProcessedClientActions": list(actions)}).encode()


def test_success_and_no_action_at_all_are_fine() -> None:
    assert parse_response(response({"ActionType": "SessionType", "ActionStatus": 1})).version == "1.2.0.0"
    assert parse_response(response()).version == "1.2.0.0"
    assert parse_response(b"{}").version == ""


def test_a_failed_action_ends_the_session_with_its_reason() -> None:
    failed = {"ActionType": "SessionType", "ActionStatus": 2, "Error": "nope"}
    with pytest.raises(HandshakeError, match="SessionType failed on client with status 2 error: nope"):
        parse_response(response(failed))


@pytest.mark.parametrize("payload", [b"x", b"[]", b"5", response("action"), b"\xff"])
def test_what_is_no_response_is_not_even_acknowledged(payload: bytes) -> None:
    with pytest.raises(UnreadableResponseError):
        parse_response(payload)


@pytest.mark.parametrize(
    ("version", "smux", "keepalive"),
    [
        ("1.1.69.0", False, True),
        ("1.1.70", True, True),
        ("1.2.0.0", True, True),
        ("1.2.331.0", True, True),
        ("1.2.650.0", True, False),
        ("", False, True),
        ("one", False, True),
    ],
)
def test_the_version_decides_what_a_client_can_do(version: str, smux: bool, keepalive: bool) -> None:
    client = ClientAbilities(version)

    assert (client.speaks_smux, client.wants_keepalive) == (smux, keepalive)
