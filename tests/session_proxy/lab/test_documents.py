from __future__ import annotations

import pytest

from session_proxy.lab.aws_protocol import AwsRefusalError, Json
from session_proxy.lab.documents import PORT_FORWARDING, REMOTE_HOST, SSH, parse_session


def test_ssh_defaults_to_port_22_and_has_no_type() -> None:
    session = parse_session(SSH, None)

    assert (session.port, session.host, session.forwards_ports) == (22, None, False)
    assert session.properties == {"portNumber": "22"}


def test_port_forwarding_says_so() -> None:
    session = parse_session(PORT_FORWARDING, {"portNumber": ["8080"], "localPortNumber": ["9"]})

    assert session.properties == {"portNumber": "8080", "type": "LocalPortForwarding", "localPortNumber": "9"}


def test_a_remote_host_is_named() -> None:
    session = parse_session(REMOTE_HOST, {"portNumber": ["5432"], "host": ["db.internal"]})

    assert (session.host, session.port, session.forwards_ports) == ("db.internal", 5432, True)
    assert session.properties["host"] == "db.internal"


@pytest.mark.parametrize(
    ("document", "parameters", "code"),
    [
        ("", None, "InvalidDocument"),
        ("AWS-RunShellScript", None, "InvalidDocument"),
        (SSH, {"portNumber": "22"}, "SerializationException"),
        (SSH, {"portNumber": ["22", "23"]}, "SerializationException"),
        (SSH, {"portNumber": ["ssh"]}, "InvalidParameters"),
        (SSH, {"portNumber": ["70000"]}, "InvalidParameters"),
        (SSH, {"host": ["db"]}, "InvalidParameters"),
        (REMOTE_HOST, {"portNumber": ["1"]}, "InvalidParameters"),
        (REMOTE_HOST, {"host": ["$(reboot)"]}, "InvalidParameters"),
    ],
)
def test_what_the_documents_refuse_is_refused(document: str, parameters: Json, code: str) -> None:
    with pytest.raises(AwsRefusalError) as refusal:
        parse_session(document, parameters)

    assert refusal.value.code == code
