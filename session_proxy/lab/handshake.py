"""The agent's half of the handshake: what it asks, and what it makes of the answer; no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import attrs

from session_proxy.lab.documents import PortSession
from session_proxy.lab.faults import Faults

# What a current agent calls itself: above every gate in the client (specification, section 6).
AGENT_VERSION = "3.3.987.0"
# The agent's gates: from here on a client speaks smux, and beyond there it wants no NOPs.
SMUX_SINCE = (1, 1, 70, 0)
NO_KEEPALIVE_ABOVE = (1, 2, 331, 0)
SUCCESS = 1
TIME_LIMIT = 15.0
KMS_KEY = "arn:aws:kms:eu-west-1:123456789012:key/lab"


class HandshakeError(Exception):
    """The client did not agree; the message is what the session ends with."""


class UnreadableResponseError(Exception):
    """The answer is no JSON: the agent does not even acknowledge it."""


@attrs.frozen
class ClientAbilities:
    """What the version that a client claims makes of the session."""

    version: str

    @property
    def speaks_smux(self) -> bool:
        """Whether port forwarding is multiplexed; else it is one connection at a time."""
        return _parse_version(self.version) >= SMUX_SINCE

    @property
    def wants_keepalive(self) -> bool:
        """Whether the agent's smux sends NOPs and expects traffic."""
        return _parse_version(self.version) <= NO_KEEPALIVE_ABOVE


def _parse_version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return (0, 0, 0, 0)
    return (*map(int, parts), 0, 0, 0, 0)[:4]


def render_request(session: PortSession, faults: Faults) -> bytes:
    """Return the payload of HandshakeRequest."""
    parameters = {"SessionType": "Port", "Properties": dict(session.properties)}
    actions: list[dict[str, object]] = [{"ActionType": "SessionType", "ActionParameters": parameters}]
    if faults.kms_action:
        kms = {"KMSKeyId": KMS_KEY, "Challenge": "wMHCw8TFxsfIycrLwMHCww=="}
        actions.append({"ActionType": "KMSEncryption", "ActionParameters": kms})
    if faults.unknown_action:
        actions.append({"ActionType": "Teleportation", "ActionParameters": None})
    return _compact({"AgentVersion": AGENT_VERSION, "RequestedClientActions": actions})


def render_complete(seconds: float, customer_message: str) -> bytes:
    """Return the payload of HandshakeComplete, after the handshake took *seconds*."""
    return _compact({"HandshakeTimeToComplete": int(seconds * 1e9), "CustomerMessage": customer_message})


def parse_response(payload: bytes) -> ClientAbilities:
    """Return what the client can do.

    Raises:
      UnreadableResponseError: the payload is no HandshakeResponse.
      HandshakeError: an action failed at the client. No actions at all are fine.

    """
    try:
        response = json.loads(payload)
    except ValueError as exc:
        raise UnreadableResponseError("the handshake response is not JSON") from exc
    if not isinstance(response, Mapping):
        raise UnreadableResponseError("the handshake response is not an object")
    fields = cast("Mapping[str, object]", response)
    actions = fields.get("ProcessedClientActions")
    for action in cast("list[object]", actions) if isinstance(actions, list) else []:
        if not isinstance(action, Mapping):
            raise UnreadableResponseError("an action of the handshake response is not an object")
        said = cast("Mapping[str, object]", action)
        status = said.get("ActionStatus")
        if status != SUCCESS:
            kind, error = said.get("ActionType"), said.get("Error")
            raise HandshakeError(f"{kind} failed on client with status {status} error: {error}")
    return ClientAbilities(str(fields.get("ClientVersion", "")))


def _compact(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
