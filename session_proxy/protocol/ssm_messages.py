"""The JSON documents inside SSM frames, and the one that opens a data channel (RFC 8259).

Keys are written in the order in which the reference writes them, and read without regard to case, as Go reads
them. What cannot be read raises `MalformedMessageError`; the frame around it is then dropped.
"""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Mapping, Sequence

import attrs

# What we claim to be. From 1.1.70 on the agent multiplexes ports, and above 1.2.331.0 it leaves out its own
# keepalives, without which it would drop a session after 30 s of our silence.
CLIENT_VERSION = "1.2.650.0"

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


class MalformedMessageError(ValueError):
    """A payload is not the JSON document that its frame promises."""


class ActionStatus(enum.IntEnum):
    """How a client fared with an action that the agent asked for."""

    SUCCESS = 1
    FAILED = 2
    UNSUPPORTED = 3


def _compact(document: Mapping[str, Json]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _read(payload: bytes, what: str) -> dict[str, Json]:
    try:
        document: Json = json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise MalformedMessageError(f"the {what} is not JSON") from exc
    if not isinstance(document, dict):
        raise MalformedMessageError(f"the {what} is not an object")
    return {key.lower(): value for key, value in document.items()}


def _text(document: Mapping[str, Json], key: str) -> str:
    value = document.get(key.lower())
    return value if isinstance(value, str) else ""


def open_data_channel(token: str, request_id: uuid.UUID, client_id: uuid.UUID) -> str:
    """Return the text message that opens the data channel with *token*."""
    return _compact(
        {
            "MessageSchemaVersion": "1.0",
            "RequestId": str(request_id),
            "TokenValue": token,
            "ClientId": str(client_id),
            "ClientVersion": CLIENT_VERSION,
        }
    ).decode()


@attrs.frozen
class Acknowledge:
    """Says that a stream frame arrived. Only *sequence_number* is looked at by anybody."""

    message_type: str
    message_id: str
    sequence_number: int
    sequential: bool = True

    def to_payload(self) -> bytes:
        """Return the payload, as both reference programs write it."""
        return (
            f'{{"AcknowledgedMessageType":"{self.message_type}","AcknowledgedMessageId":"{self.message_id}",'
            f'"AcknowledgedMessageSequenceNumber":{self.sequence_number},'
            f'"IsSequentialMessage":{"true" if self.sequential else "false"}}}'
        ).encode()

    @classmethod
    def from_payload(cls, payload: bytes) -> Acknowledge:
        """Return what *payload* acknowledges; raises `MalformedMessageError`."""
        document = _read(payload, "acknowledgement")
        number = document.get("acknowledgedmessagesequencenumber", 0)
        if not isinstance(number, int) or isinstance(number, bool):
            raise MalformedMessageError("the acknowledged sequence number is not an integer")
        return cls(
            message_type=_text(document, "AcknowledgedMessageType"),
            message_id=_text(document, "AcknowledgedMessageId"),
            sequence_number=number,
            sequential=document.get("issequentialmessage") is True,
        )


@attrs.frozen(kw_only=True)
class ChannelClosed:
    """The service ends the session; *output* is its reason, "" for a normal end."""

    session_id: str
    output: str = ""
    destination_id: str = ""
    message_id: str = ""
    created_date: str = ""

    def to_payload(self) -> bytes:
        """Return the payload."""
        return _compact(
            {
                "MessageId": self.message_id,
                "CreatedDate": self.created_date,
                "DestinationId": self.destination_id,
                "SessionId": self.session_id,
                "MessageType": "channel_closed",
                "SchemaVersion": 1,
                "Output": self.output,
            }
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> ChannelClosed:
        """Return what *payload* says; raises `MalformedMessageError`. The session has ended even then."""
        document = _read(payload, "channel_closed message")
        return cls(
            session_id=_text(document, "SessionId"),
            output=_text(document, "Output"),
            destination_id=_text(document, "DestinationId"),
            message_id=_text(document, "MessageId"),
            created_date=_text(document, "CreatedDate"),
        )


@attrs.frozen
class RequestedAction:
    """Something that the agent wants done during the handshake."""

    action_type: str
    session_type: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    """For a ``SessionType`` action: the port, and where it is."""


@attrs.frozen
class HandshakeRequest:
    """The agent introduces itself."""

    agent_version: str
    actions: tuple[RequestedAction, ...]

    def to_payload(self) -> bytes:
        """Return the payload."""
        return _compact(
            {
                "AgentVersion": self.agent_version,
                "RequestedClientActions": [
                    {
                        "ActionType": action.action_type,
                        "ActionParameters": {
                            "SessionType": action.session_type,
                            "Properties": dict(action.properties),
                        },
                    }
                    for action in self.actions
                ],
            }
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> HandshakeRequest:
        """Return what *payload* asks; raises `MalformedMessageError`."""
        document = _read(payload, "handshake request")
        requested = document.get("requestedclientactions")
        actions = [_action(entry) for entry in requested] if isinstance(requested, list) else []
        return cls(_text(document, "AgentVersion"), tuple(actions))


def _action(entry: Json) -> RequestedAction:
    if not isinstance(entry, Mapping):
        raise MalformedMessageError("a requested action is not an object")
    action = {key.lower(): value for key, value in entry.items()}
    parameters = action.get("actionparameters")
    inner = (
        {key.lower(): value for key, value in parameters.items()} if isinstance(parameters, Mapping) else {}
    )
    properties = inner.get("properties")
    return RequestedAction(
        _text(action, "ActionType"),
        _text(inner, "SessionType"),
        tuple((key, value) for key, value in properties.items() if isinstance(value, str))
        if isinstance(properties, Mapping)
        else (),
    )


@attrs.frozen
class ProcessedAction:
    """How one requested action went."""

    action_type: str
    status: int
    error: str = ""


@attrs.frozen
class HandshakeResponse:
    """The client's answer to a `HandshakeRequest`."""

    actions: tuple[ProcessedAction, ...]
    errors: tuple[str, ...] = ()
    client_version: str = CLIENT_VERSION

    def to_payload(self) -> bytes:
        """Return the payload."""
        return _compact(
            {
                "ClientVersion": self.client_version,
                "ProcessedClientActions": [
                    {
                        "ActionType": action.action_type,
                        "ActionStatus": int(action.status),
                        "ActionResult": None,
                        "Error": action.error,
                    }
                    for action in self.actions
                ],
                "Errors": list(self.errors) or None,
            }
        )

    @classmethod
    def from_payload(cls, payload: bytes) -> HandshakeResponse:
        """Return what *payload* answers; raises `MalformedMessageError`."""
        document = _read(payload, "handshake response")
        processed = document.get("processedclientactions")
        actions: list[ProcessedAction] = []
        for entry in processed if isinstance(processed, list) else []:
            if not isinstance(entry, Mapping):
                raise MalformedMessageError("a processed action is not an object")
            action = {key.lower(): value for key, value in entry.items()}
            status = action.get("actionstatus", 0)
            if not isinstance(status, int):
                raise MalformedMessageError("an action's status is not an integer")
            actions.append(ProcessedAction(_text(action, "ActionType"), status, _text(action, "Error")))
        errors = document.get("errors")
        return cls(
            tuple(actions),
            tuple(str(error) for error in errors) if isinstance(errors, list) else (),
            _text(document, "ClientVersion"),
        )


@attrs.frozen
class HandshakeComplete:
    """The agent is satisfied; *duration* is in nanoseconds, *customer_message* is for the user."""

    duration: int
    customer_message: str = ""

    def to_payload(self) -> bytes:
        """Return the payload."""
        return _compact({"HandshakeTimeToComplete": self.duration, "CustomerMessage": self.customer_message})

    @classmethod
    def from_payload(cls, payload: bytes) -> HandshakeComplete:
        """Return what *payload* says; raises `MalformedMessageError`."""
        document = _read(payload, "handshake completion")
        duration = document.get("handshaketimetocomplete", 0)
        if not isinstance(duration, int):
            raise MalformedMessageError("the handshake's duration is not an integer")
        return cls(duration, _text(document, "CustomerMessage"))


def version_above(version: str, floor: str) -> bool:
    """Tell whether *version* is strictly above *floor*; one that is not four numbers is not."""
    parts = version.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
        return False
    return [int(part) for part in parts] > [int(part) for part in floor.split(".")]


@attrs.frozen
class AgentFeatures:
    """What an agent of a version can do."""

    terminate_flag: bool
    multiplexing: bool
    quiet_multiplexing: bool
    """Its multiplexer sends no keepalives of its own."""

    @classmethod
    def of(cls, agent_version: str) -> AgentFeatures:
        """Return the features of *agent_version*, none where it is not four numbers."""
        return cls(
            terminate_flag=version_above(agent_version, "2.3.722.0"),
            multiplexing=version_above(agent_version, "3.0.196.0"),
            quiet_multiplexing=version_above(agent_version, "3.1.1511.0"),
        )
