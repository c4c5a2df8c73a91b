"""What happens to frames on their way through the gateway, as `Faults` has it; no I/O."""

from __future__ import annotations

from session_proxy.lab.faults import Faults
from session_proxy.protocol.ssm_frames import MessageType

# Where MessageType and PayloadType stand in a frame (specification, section 3).
_TYPE = slice(4, 36)
_PAYLOAD_TYPE = slice(112, 116)
_DATA = (1).to_bytes(4, "big")
_DIGEST_AT = 80
_PAST_THE_END = (0x7FFFFFF0).to_bytes(4, "big")


def message_type(message: bytes) -> str:
    """Return a frame's MessageType, unchecked."""
    return message[_TYPE].rstrip(b"\0 ").decode("ascii", "replace")


class Damage:
    """The frames of one session in one direction: `pass_on` says what becomes of each."""

    def __init__(self, faults: Faults, *, output: bool) -> None:
        self._faults = faults
        self._output = output
        self._stream_frames = 0
        self._acknowledgements = 0
        self._held: bytes | None = None

    def pass_on(self, message: bytes) -> list[bytes]:
        """Return what goes on instead of *message*: nothing, itself, or itself and something else."""
        faults = self._faults
        kind = message_type(message)
        if kind == MessageType.ACKNOWLEDGE:
            self._acknowledgements += 1
            every = faults.drop_acks_to_client if self._output else faults.drop_acks_to_agent
            return [] if _hits(self._acknowledgements, every) else [message]
        if kind not in (MessageType.OUTPUT_STREAM_DATA, MessageType.INPUT_STREAM_DATA):
            return [message]
        self._stream_frames += 1
        return self._reorder(message, self._damage(message))

    def _damage(self, message: bytes) -> list[bytes]:
        faults, number = self._faults, self._stream_frames
        if _hits(number, faults.drop_output if self._output else faults.drop_input):
            return []
        found = [message]
        if _hits(number, faults.duplicate_output if self._output else faults.duplicate_input):
            found.append(message)
        if self._output and _hits(number, faults.wrong_digest):
            flipped = bytes((message[_DIGEST_AT] ^ 1,))
            found.insert(0, message[:_DIGEST_AT] + flipped + message[_DIGEST_AT + 1 :])
        if self._output and _hits(number, faults.wrong_header):
            found.insert(0, _PAST_THE_END + message[4:])
        return found

    def _reorder(self, message: bytes, found: list[bytes]) -> list[bytes]:
        if self._held is not None:
            found = [*found, self._held]
            self._held = None
            return found
        every = self._faults.reorder_output if self._output else self._faults.reorder_input
        # Only data: the reference mistakes a handshake frame that comes out of order for data (section 7).
        if _hits(self._stream_frames, every) and message[_PAYLOAD_TYPE] == _DATA and found:
            self._held = found.pop()
        return found


def _hits(number: int, every: int) -> bool:
    return every > 0 and number % every == 0
