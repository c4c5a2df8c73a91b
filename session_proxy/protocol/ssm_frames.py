"""The frames of an AWS Session Manager data channel: one per binary WebSocket message.

Layout, big-endian::

    0    4   HeaderLength    116: the offset of PayloadLength. The service's own frames say 112
    4   32   MessageType     ASCII, padded with spaces (the service pads with NULs)
    36   4   SchemaVersion   1
    40   8   CreatedDate     milliseconds since the Unix epoch, not 0
    48   8   SequenceNumber  signed
    56   8   Flags           bit 0 SYN, bit 1 FIN
    64  16   MessageId       a UUID with its halves swapped
    80  32   PayloadDigest   SHA-256 of the payload
    112  4   PayloadType     absent where HeaderLength is 112
    116  4   PayloadLength   never trusted
    120  n   Payload         at HeaderLength + 4
"""

from __future__ import annotations

import enum
import hashlib
import struct
import uuid
from collections.abc import Mapping
from typing import Self

import attrs

HEADER = struct.Struct(">I32sIQqQ16s32sII")
HEADER_LENGTH = 116
# What frames that the service itself makes have instead: they carry no PayloadType.
SERVICE_HEADER_LENGTH = 112
_SERVICE_HEADER = struct.Struct(">I32sIQqQ16s32sI")
_TYPE_WIDTH = 32


class MalformedFrameError(ValueError):
    """The bytes are no valid frame; drop them, and go on."""


class MessageType(enum.StrEnum):
    """What a frame is for; others are ignored by every party."""

    INPUT_STREAM_DATA = "input_stream_data"
    OUTPUT_STREAM_DATA = "output_stream_data"
    ACKNOWLEDGE = "acknowledge"
    CHANNEL_CLOSED = "channel_closed"
    START_PUBLICATION = "start_publication"
    PAUSE_PUBLICATION = "pause_publication"
    AGENT_SESSION_STATE = "agent_session_state"


class PayloadType(enum.IntEnum):
    """What a stream frame carries; all of them share one sequence per direction."""

    NONE = 0
    OUTPUT = 1
    ERROR = 2
    SIZE = 3
    PARAMETER = 4
    HANDSHAKE_REQUEST = 5
    HANDSHAKE_RESPONSE = 6
    HANDSHAKE_COMPLETE = 7
    ENC_CHALLENGE_REQUEST = 8
    ENC_CHALLENGE_RESPONSE = 9
    FLAG = 10
    STDERR = 11
    EXIT_CODE = 12


class Flag(enum.IntEnum):
    """The content of a `PayloadType.FLAG` frame, as 4 bytes."""

    DISCONNECT_TO_PORT = 1
    TERMINATE_SESSION = 2
    CONNECT_TO_PORT_ERROR = 3

    def to_payload(self) -> bytes:
        """Return the frame's payload."""
        return self.to_bytes(4, "big")


SYN = 1
FIN = 2
# What both reference programs set on frames without a sequence, for no reader.
UNSEQUENCED_FLAGS = SYN | FIN

# Nothing is checked on these: the service fills their headers in carelessly.
_UNCHECKED = frozenset({MessageType.START_PUBLICATION, MessageType.PAUSE_PUBLICATION})

# A session may carry a thousand frames a second; nearly all have one of these.
_PADDED: Mapping[str, bytes] = {kind.value: kind.value.encode().ljust(_TYPE_WIDTH) for kind in MessageType}
_NAMES: Mapping[bytes, str] = {padded: name for name, padded in _PADDED.items()}


@attrs.frozen(kw_only=True)
class Frame:
    """One frame. *created_date* is in milliseconds; *payload* may hold anybody's data and is not shown."""

    message_type: str
    message_id: uuid.UUID
    created_date: int
    sequence_number: int = 0
    flags: int = 0
    payload_type: int = PayloadType.NONE
    payload: bytes = attrs.field(default=b"", repr=lambda payload: f"<{len(payload)} bytes>")
    schema_version: int = 1
    header_length: int = HEADER_LENGTH

    def encode(self) -> bytes:
        """Return the frame as one WebSocket message.

        Raises:
          ValueError: the payload is empty or the type too long: the reference can send neither.

        """
        if not self.payload:
            raise ValueError("a frame without a payload cannot be sent")
        message_type = _PADDED.get(self.message_type) or _padded(self.message_type)
        raw_id = self.message_id.bytes
        fields = (
            self.schema_version,
            self.created_date,
            self.sequence_number,
            self.flags,
            raw_id[8:] + raw_id[:8],
            hashlib.sha256(self.payload).digest(),
        )
        size = len(self.payload)
        if self.header_length == SERVICE_HEADER_LENGTH:
            message_type = message_type.rstrip(b" ").ljust(_TYPE_WIDTH, b"\0")
            header = _SERVICE_HEADER.pack(SERVICE_HEADER_LENGTH, message_type, *fields, size)
        else:
            header = HEADER.pack(HEADER_LENGTH, message_type, *fields, self.payload_type, size)
        return header + self.payload

    @classmethod
    def decode(cls, data: bytes | bytearray) -> Self:
        """Return the frame that a WebSocket message holds.

        Checks what the plugin checks: the type, the date, and the digest of a payload. The payload starts
        where HeaderLength says, and ends with the message.

        Raises:
          MalformedFrameError: *data* is none, or its digest is wrong.

        """
        if len(data) < HEADER.size:
            # A service frame with fewer than four bytes of payload is legal and useless; nobody sends one.
            raise MalformedFrameError(f"{len(data)} bytes are too few for a frame")
        (
            header_length,
            raw_type,
            schema,
            created,
            sequence,
            flags,
            message_id,
            digest,
            payload_type,
            length,
        ) = HEADER.unpack_from(data)
        message_type = _NAMES.get(raw_type) or _stripped(raw_type)
        start = header_length + 4
        if message_type in _UNCHECKED:
            payload = b""
        elif header_length < SERVICE_HEADER_LENGTH or start > len(data):
            raise MalformedFrameError(f"a header of {header_length} bytes does not fit")
        elif not message_type:
            raise MalformedFrameError("the message type is missing")
        elif not created:
            raise MalformedFrameError("the creation date is missing")
        else:
            payload = bytes(data[start:])
            # Like the plugin: PayloadLength says only whether there is a payload to check.
            if length and hashlib.sha256(payload).digest() != digest:
                raise MalformedFrameError("the payload's digest is wrong")
        return cls(
            message_type=message_type,
            message_id=uuid.UUID(bytes=message_id[8:] + message_id[:8]),
            created_date=created,
            sequence_number=sequence,
            flags=flags,
            payload_type=payload_type if header_length >= HEADER_LENGTH else PayloadType.NONE,
            payload=payload,
            schema_version=schema,
            header_length=header_length,
        )


def _padded(message_type: str) -> bytes:
    encoded = message_type.encode("utf-8", "surrogateescape")
    if len(encoded) > _TYPE_WIDTH:
        raise ValueError(f"a message type has at most {_TYPE_WIDTH} characters")
    return encoded.ljust(_TYPE_WIDTH)


def _stripped(raw: bytes) -> str:
    return raw.strip(b"\0").strip().decode("utf-8", "surrogateescape")
