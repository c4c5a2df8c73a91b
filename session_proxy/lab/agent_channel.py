"""The agent's end of a data channel, as AWS's amazon-ssm-agent has it: bytes in, bytes and events out.

It shares the frames with our client but not its reliability: a peer made of the same code would have the same
mistakes. What it does with each frame is the agent's column of the specification's section 7. The states are
the handshake's: data that comes before its end is acknowledged and thrown away, data that comes before the
TCP connection is up (`ready`) is refused without a word, so that the client sends it again.
"""

from __future__ import annotations

import json
import math
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

import attrs

from session_proxy.lab.documents import PortSession
from session_proxy.lab.faults import Faults
from session_proxy.lab.handshake import (
    TIME_LIMIT,
    ClientAbilities,
    HandshakeError,
    UnreadableResponseError,
    parse_response,
    render_complete,
    render_request,
)
from session_proxy.lab.retransmission import TICK, SentFrames
from session_proxy.protocol.ssm_frames import (
    SYN,
    UNSEQUENCED_FLAGS,
    Flag,
    Frame,
    MalformedFrameError,
    MessageType,
    PayloadType,
)

# Frames ahead of the expected one that are kept: the reference's number.
MAX_AHEAD = 100_000


@attrs.frozen
class HandshakeDone:
    """The client has answered; the agent now connects to the port."""

    client: ClientAbilities


@attrs.frozen
class DataReceived:
    """Bytes for the port, in order; say so with `AgentChannel.delivered` once they are written."""

    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")
    acknowledgement: bytes | None = attrs.field(repr=False)


@attrs.frozen
class PortDisconnected:
    """The client's connection ended (Flag 1): close the one to the port, and wait for the next."""


@attrs.frozen
class SessionEnded:
    """The session is over; *reason* is "" where the client ended it on purpose (Flag 2)."""

    reason: str


AgentEvent = HandshakeDone | DataReceived | PortDisconnected | SessionEnded


@attrs.frozen(kw_only=True)
class Origins:
    """Where a channel takes what it cannot compute: message ids, and milliseconds since the epoch."""

    new_id: Callable[[], uuid.UUID]
    wall_clock: Callable[[], int]


class AgentChannel:
    """One session at its agent. Counters and buffers live as long as it, whatever the WebSocket does.

    *now* is always in seconds, on any clock of the caller's that does not jump.
    """

    def __init__(
        self, session_id: str, session: PortSession, faults: Faults, origins: Origins, now: float
    ) -> None:
        self.ready = False
        """Whether the port takes data; else they are refused."""
        self.attached = False
        """Whether there is a WebSocket; else nothing is resent."""
        self.paused = False
        self._faults = faults
        self._origins = origins
        self._started = now
        self._sent = SentFrames(head_only=faults.resend_head_only)
        self._next_sequence = 0
        self._expected = 0
        self._ahead: dict[int, Frame] = {}
        self._refusals = faults.refuse_input
        self._tick = now + TICK
        self._complete = False
        self._over = False
        self._urgent: deque[bytes] = deque()
        self._outgoing: deque[tuple[int, bytes]] = deque()
        self._waiting = 0
        self._events: deque[AgentEvent] = deque()
        self._send_unsequenced(
            MessageType.AGENT_SESSION_STATE,
            {"SchemaVersion": 1, "SessionState": "Connected", "SessionId": session_id},
        )
        if not faults.no_handshake:
            self._send(PayloadType.HANDSHAKE_REQUEST, render_request(session, faults))

    @property
    def unacknowledged(self) -> int:
        """Bytes that were handed over for sending, from the first on that the client has not acknowledged."""
        return self._sent.span + self._waiting

    @property
    def frames(self) -> int:
        """How many stream frames there have been in both directions, resent ones not counted."""
        return self._next_sequence + self._expected

    @property
    def drained(self) -> bool:
        """Whether the client has acknowledged everything."""
        return not self._sent and not self._outgoing

    def next_event(self) -> AgentEvent | None:
        """Return the next thing that happened, or `None`."""
        return self._events.popleft() if self._events else None

    def send_data(self, payload: bytes) -> None:
        """Send bytes from the port; call `messages_to_send` afterwards."""
        if payload:
            self._send(PayloadType.OUTPUT, payload)

    def send_flag(self, flag: Flag) -> None:
        """Tell the client something about the port; call `messages_to_send` afterwards."""
        self._send(PayloadType.FLAG, flag.to_payload())

    def delivered(self, data: DataReceived) -> None:
        """Acknowledge *data*, now that it has been written; call `messages_to_send` afterwards."""
        if data.acknowledgement is not None:
            self._urgent.append(data.acknowledgement)

    def messages_to_send(self, now: float) -> list[bytes]:
        """Return the WebSocket messages to send now: acknowledgements first, then new frames."""
        messages = list(self._urgent)
        self._urgent.clear()
        if self._outgoing and not self.paused:
            if not self._sent:
                self._tick = now + TICK
            for sequence, message in self._outgoing:
                self._sent.add(sequence, message, now)
                messages.append(message)
            self._outgoing.clear()
            self._waiting = 0
        return messages

    def next_timer(self) -> float:
        """Return when to call `handle_timer`, infinity where there is nothing to wait for."""
        if self._over:
            return math.inf
        handshake = math.inf if self._complete else self._started + TIME_LIMIT
        return min(handshake, self._tick if self._sent and self.attached else math.inf)

    def handle_timer(self, now: float) -> None:
        """Resend what is overdue, and give up a handshake that takes too long; then `messages_to_send`."""
        if not self._complete and now >= self._started + TIME_LIMIT:
            self._end("Handshake timed out. Please ensure that you have the latest session manager plugin.")
        if now >= self._tick:
            self._tick = now + TICK
            if self.attached and not self.paused:
                self._urgent.extend(self._sent.overdue(now))

    def receive_message(self, message: bytes, now: float) -> None:
        """Take in one WebSocket message from the client; then `next_event` and `messages_to_send`.

        What is no frame is dropped.
        """
        try:
            frame = Frame.decode(message)
        except MalformedFrameError:
            return
        match frame.message_type:
            case MessageType.INPUT_STREAM_DATA:
                self.paused = False
                self._on_stream_frame(frame, now)
            case MessageType.ACKNOWLEDGE:
                self.paused = False
                self._on_acknowledgement(frame, now)
            case MessageType.PAUSE_PUBLICATION:
                self.paused = True
            case MessageType.START_PUBLICATION:
                self.paused = False
            case MessageType.CHANNEL_CLOSED:
                self._end("")
            case _:
                return

    def _on_acknowledgement(self, frame: Frame, now: float) -> None:
        try:
            content = json.loads(bytes(frame.payload))
        except ValueError:
            return
        if isinstance(content, Mapping):
            sequence = cast("Mapping[str, object]", content).get("AcknowledgedMessageSequenceNumber")
            if isinstance(sequence, int):
                self._sent.acknowledge(sequence, now)

    def _on_stream_frame(self, frame: Frame, now: float) -> None:
        if frame.sequence_number < self._expected:
            self._urgent.append(self._acknowledgement(frame))
        elif frame.sequence_number > self._expected:
            if len(self._ahead) < MAX_AHEAD:
                self._ahead[frame.sequence_number] = frame
                self._urgent.append(self._acknowledgement(frame))
        elif not self._refuses(frame) and self._take(frame, now, self._acknowledgement(frame)):
            while (buffered := self._ahead.pop(self._expected, None)) is not None:
                # It was acknowledged on its arrival.
                self._take(buffered, now, None)

    def _refuses(self, frame: Frame) -> bool:
        if frame.payload_type != PayloadType.OUTPUT or not self._complete:
            return False
        if self.ready and self._refusals > 0:
            self._refusals -= 1
            return True
        return not self.ready

    def _take(self, frame: Frame, now: float, acknowledgement: bytes | None) -> bool:
        """Process the expected frame; `False` leaves it expected."""
        if frame.payload_type == PayloadType.HANDSHAKE_RESPONSE and not self._complete:
            try:
                self._finish_handshake(bytes(frame.payload), now, acknowledgement)
            except UnreadableResponseError:
                return False
        elif frame.payload_type == PayloadType.OUTPUT and self._complete:
            self._events.append(DataReceived(bytes(frame.payload), acknowledgement))
        else:
            # Data before its time, or of a kind that no port session has, is thrown away.
            if acknowledgement is not None:
                self._urgent.append(acknowledgement)
            if frame.payload_type == PayloadType.FLAG:
                self._on_flag(bytes(frame.payload))
        self._expected += 1
        return True

    def _finish_handshake(self, payload: bytes, now: float, acknowledgement: bytes | None) -> None:
        try:
            client = parse_response(payload)
        except HandshakeError as exc:
            self._end(str(exc))
            client = None
        if acknowledgement is not None:
            self._urgent.append(acknowledgement)
        if client is not None:
            self._complete = True
            seconds = now - self._started
            self._send(
                PayloadType.HANDSHAKE_COMPLETE, render_complete(seconds, self._faults.customer_message)
            )
            self._events.append(HandshakeDone(client))

    def _on_flag(self, payload: bytes) -> None:
        match int.from_bytes(payload, "big"):
            case Flag.DISCONNECT_TO_PORT:
                self._events.append(PortDisconnected())
            case Flag.TERMINATE_SESSION:
                self._end("")
            case _:
                return

    def _end(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._events.append(SessionEnded(reason))

    def _send(self, payload_type: PayloadType, payload: bytes) -> None:
        sequence = self._next_sequence
        self._next_sequence += 1
        message = self._frame(
            MessageType.OUTPUT_STREAM_DATA, payload, payload_type, sequence, 0 if sequence else SYN
        )
        self._outgoing.append((sequence, message))
        self._waiting += len(message)

    def _send_unsequenced(self, message_type: MessageType, content: Mapping[str, object]) -> None:
        self._urgent.append(self._unsequenced(message_type, content))

    def _acknowledgement(self, frame: Frame) -> bytes:
        return self._unsequenced(
            MessageType.ACKNOWLEDGE,
            {
                "AcknowledgedMessageType": frame.message_type,
                "AcknowledgedMessageId": str(frame.message_id),
                "AcknowledgedMessageSequenceNumber": frame.sequence_number,
                "IsSequentialMessage": True,
            },
        )

    def _unsequenced(self, message_type: MessageType, content: Mapping[str, object]) -> bytes:
        payload = json.dumps(content, separators=(",", ":")).encode()
        return self._frame(message_type, payload, PayloadType.NONE, 0, UNSEQUENCED_FLAGS)

    def _frame(
        self, message_type: MessageType, payload: bytes, payload_type: PayloadType, sequence: int, flags: int
    ) -> bytes:
        return Frame(
            message_type=message_type,
            message_id=self._origins.new_id(),
            created_date=self._origins.wall_clock(),
            sequence_number=sequence,
            flags=flags,
            payload_type=payload_type,
            payload=payload,
        ).encode()
