"""The SSM vectors (what the reference programs said), and a client's channel to play them to."""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from session_proxy.protocol.ssm_channel import Channel, DataReceived, Event
from session_proxy.protocol.ssm_frames import Frame, MessageType, PayloadType
from session_proxy.protocol.ssm_messages import HandshakeComplete, HandshakeRequest, RequestedAction

Vector = Mapping[str, Any]

FILE = Path(os.environ.get("SSM_VECTORS") or Path(__file__).parents[1] / "vectors/ssm.json")
VECTORS: Vector = json.loads(FILE.read_text(encoding="utf-8"))

AGENT_VERSION = "3.3.987.0"


def section(name: str) -> Any:  # noqa: ANN401  # JSON
    """Return a section of the vectors; a test that needs a missing one is skipped."""
    if name not in VECTORS:
        pytest.skip(f"{FILE} has no section {name}")
    return VECTORS[name]


def vectors(name: str) -> Sequence[object]:
    """Return the entries of a section as pytest parameters, each under its name."""
    if name not in VECTORS:
        missing = pytest.mark.skip(reason=f"{FILE} has no section {name}")
        return [pytest.param({}, id=f"no-{name}", marks=missing)]
    found = VECTORS[name]
    if isinstance(found, dict):
        return [pytest.param(entry, id=key) for key, entry in found.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return [pytest.param(entry, id=str(entry.get("name", index))) for index, entry in enumerate(found)]


def make_channel(
    *, payload: int = 16384, hold: float = 0.0, frames_per_second: int = 1_000_000, first_id: int = 1
) -> Channel:
    """Return a client's channel with message ids that count up, and a pace that does not matter."""
    ids = itertools.count(first_id)
    return Channel(
        new_id=lambda: uuid.UUID(int=next(ids)),
        epoch=1_700_000_000.0,
        payload=payload,
        frames_per_second=frames_per_second,
        hold=hold,
    )


def agent_frame(
    number: int,
    payload: bytes,
    kind: int = PayloadType.OUTPUT,
    message_type: str = MessageType.OUTPUT_STREAM_DATA,
) -> bytes:
    """Return a stream frame as the agent sends it."""
    return Frame(
        message_type=message_type,
        message_id=uuid.UUID(int=1000 + number),
        created_date=1,
        sequence_number=number,
        payload_type=kind,
        payload=payload,
    ).encode()


def handshake(agent_version: str = AGENT_VERSION, customer_message: str = "") -> list[bytes]:
    """Return the two frames with which an agent shakes hands; its next number is 2."""
    request = HandshakeRequest(
        agent_version, (RequestedAction("SessionType", "Port", (("portNumber", "22"),)),)
    )
    complete = HandshakeComplete(1_000_000, customer_message)
    return [
        agent_frame(0, request.to_payload(), PayloadType.HANDSHAKE_REQUEST),
        agent_frame(1, complete.to_payload(), PayloadType.HANDSHAKE_COMPLETE),
    ]


def ready_channel(**options: Any) -> Channel:  # noqa: ANN401  # those of make_channel
    """Return a channel after its handshake, its events and answers taken out and acknowledged."""
    channel = make_channel(**options)
    for message in handshake():
        channel.receive_message(message, 0.0)
    for frame in sent(channel, 0.0):
        if frame.message_type == MessageType.INPUT_STREAM_DATA:
            channel.receive_message(acknowledgement(frame.sequence_number), 0.0)
    events(channel)
    return channel


def acknowledgement(number: int) -> bytes:
    """Return the agent's acknowledgement of the client's frame *number*."""
    payload = f'{{"AcknowledgedMessageSequenceNumber":{number}}}'.encode()
    return agent_frame(0, payload, PayloadType.NONE, MessageType.ACKNOWLEDGE)


def sent(channel: Channel, now: float) -> list[Frame]:
    """Return what the channel sends now, decoded."""
    return [Frame.decode(message) for message in channel.messages_to_send(now)]


def events(channel: Channel) -> list[Event]:
    """Return what has happened."""
    found: list[Event] = []
    while (event := channel.next_event()) is not None:
        found.append(event)
    return found


def data_of(found: Sequence[Event]) -> bytes:
    """Return the bytes of the stream in *found*."""
    return b"".join(event.data for event in found if isinstance(event, DataReceived))


def acknowledged(frames: Sequence[Frame]) -> list[int]:
    """Return the numbers that *frames* acknowledge."""
    return [
        json.loads(frame.payload)["AcknowledgedMessageSequenceNumber"]
        for frame in frames
        if frame.message_type == MessageType.ACKNOWLEDGE
    ]


def shifted(message: bytes, by: int) -> bytes:
    """Return a frame with another sequence number."""
    frame = Frame.decode(message)
    return attrs.evolve(frame, sequence_number=frame.sequence_number + by).encode()
