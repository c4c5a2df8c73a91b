"""The session documents that the lab's agent knows, and what their parameters ask for; no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from session_proxy.lab.aws_protocol import AwsRefusalError, Json

SSH = "AWS-StartSSHSession"
PORT_FORWARDING = "AWS-StartPortForwardingSession"
REMOTE_HOST = "AWS-StartPortForwardingSessionToRemoteHost"

# Parameters and their defaults; None: there is none, so it has to be given.
PARAMETERS: Mapping[str, Mapping[str, str | None]] = {
    SSH: {"portNumber": "22"},
    PORT_FORWARDING: {"portNumber": "80", "localPortNumber": "0"},
    REMOTE_HOST: {"host": None, "portNumber": "80", "localPortNumber": "0"},
}
PORT = re.compile(r"[0-9]{1,5}")
# What the real documents take as a host: names and addresses.
HOST = re.compile(r"[0-9A-Za-z.:_-]{1,253}")


@attrs.frozen
class PortSession:
    """What a session is for: a TCP port of the instance itself, or, with *host*, of another machine."""

    document: str
    host: str | None
    port: int
    local_port: str = "0"

    @property
    def forwards_ports(self) -> bool:
        """Whether this is ``LocalPortForwarding``: many connections, one after another or by smux."""
        return self.document != SSH

    @property
    def properties(self) -> Mapping[str, str]:
        """What the handshake's SessionType action says (specification, section 1)."""
        found = {"portNumber": str(self.port)}
        if self.forwards_ports:
            found |= {"type": "LocalPortForwarding", "localPortNumber": self.local_port}
        if self.host is not None:
            found["host"] = self.host
        return found


def parse_session(document: str, parameters: Json) -> PortSession:
    """Return what StartSession's ``DocumentName`` and ``Parameters`` ask for.

    Raises:
      AwsRefusalError: there is no such document, or its parameters do not fit.

    """
    known = PARAMETERS.get(document)
    if known is None:
        message = f"Document with name {document} does not exist." if document else "The lab has no shell."
        raise AwsRefusalError("InvalidDocument", message)
    values = {**known, **_scalars(parameters)}
    for name, value in values.items():
        if name not in known:
            raise AwsRefusalError("InvalidParameters", f"Parameter {name} is not defined in {document}.")
        pattern = HOST if name == "host" else PORT
        if value is None or not pattern.fullmatch(value) or (pattern is PORT and int(value) > 65535):
            raise AwsRefusalError("InvalidParameters", f"Parameter {name} has no valid value.")
    port, local_port = str(values["portNumber"]), str(values.get("localPortNumber", "0"))
    return PortSession(document, values.get("host"), int(port), local_port)


def _scalars(parameters: Json) -> dict[str, str]:
    # The API takes lists of strings; the agent is handed the strings.
    found: dict[str, str] = {}
    for name, values in parameters.items() if isinstance(parameters, Mapping) else ():
        match values:
            case [str(value)]:
                found[name] = value
            case _:
                message = f"Parameters.{name} must be a list of one string"
                raise AwsRefusalError("SerializationException", message)
    return found
