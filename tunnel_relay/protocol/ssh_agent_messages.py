"""Messages to and from an ssh-agent (draft-miller-ssh-agent, section 3): a length, a number, fields."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from tunnel_relay.protocol.ssh_fields import FieldError, Fields, string, uint32

FAILURE = 5
REQUEST_IDENTITIES = 11
IDENTITIES_ANSWER = 12
SIGN_REQUEST = 13
SIGN_RESPONSE = 14

# Which hash an RSA key signs with (section 3.6.1).
RSA_SHA2_256 = 2
RSA_SHA2_512 = 4

LENGTH = 4
# OpenSSH's own limit of a message (AGENT_MAX_LEN).
MAX_MESSAGE = 256 * 1024
# No agent holds more keys; OpenSSH's stops at 2048.
MAX_KEYS = 2048


@attrs.frozen
class AgentKey:
    """A key that an agent holds: the public half, and what its owner calls it."""

    blob: bytes = attrs.field(repr=False)
    comment: str


def identities_request() -> bytes:
    """Return the message that asks for the keys, without its length."""
    return bytes([REQUEST_IDENTITIES])


def sign_request(blob: bytes, data: bytes, flags: int) -> bytes:
    """Return the message that asks for a signature of *data* by the key *blob*, without its length."""
    return bytes([SIGN_REQUEST]) + string(blob) + string(data) + uint32(flags)


def framed(message: bytes) -> bytes:
    """Return *message*, which begins with its number, as it is sent."""
    return string(message)


def failure() -> bytes:
    """Return the answer to what is not done, without its length."""
    return bytes([FAILURE])


def identities_answer(keys: Iterable[AgentKey]) -> bytes:
    """Return the answer to `identities_request`, without its length."""
    held = [string(key.blob) + string(key.comment.encode()) for key in keys]
    return bytes([IDENTITIES_ANSWER]) + uint32(len(held)) + b"".join(held)


def asks_for_identities(message: bytes) -> bool:
    """Return whether a client asks for the keys."""
    return message == bytes([REQUEST_IDENTITIES])


def parse_sign_request(message: bytes) -> bytes | None:
    """Return which key is to sign; `None` where *message* asks for something else.

    Raises:
      FieldError: it is cut off.

    """
    fields = Fields(message)
    if fields.byte() != SIGN_REQUEST:
        return None
    blob = fields.string()
    fields.string()
    fields.uint32()
    return blob


def message_length(head: bytes) -> int:
    """Return how many bytes follow *head*, the first `LENGTH` of a message; raises `FieldError`."""
    length = int.from_bytes(head, "big")
    if not 1 <= length <= MAX_MESSAGE:
        raise FieldError(f"a message of {length} bytes is not one of an ssh-agent")
    return length


def parse_identities(message: bytes) -> list[AgentKey]:
    """Return the keys in the answer to `identities_request`; raises `FieldError` where it is another message."""
    fields = _expect(IDENTITIES_ANSWER, message)
    count = fields.uint32()
    if count > MAX_KEYS:
        raise FieldError(f"the agent says that it holds {count} keys")
    return [AgentKey(fields.string(), fields.text()) for _ in range(count)]


def parse_signature(message: bytes) -> bytes | None:
    """Return the signature in the answer to `sign_request`; `None`: the agent would not sign.

    Raises:
      FieldError: it is another message.

    """
    if message[:1] == bytes([FAILURE]):
        return None
    return _expect(SIGN_RESPONSE, message).string()


def _expect(number: int, message: bytes) -> Fields:
    fields = Fields(message)
    if fields.byte() != number:
        raise FieldError("the agent answered something else")
    return fields
