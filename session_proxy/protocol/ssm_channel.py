"""The client's end of an SSM data channel, without I/O: messages in, events and messages out.

Put what the WebSocket brings into `Channel.receive_message`, pull `Channel.next_event`, send what
`Channel.messages_to_send` returns, and call that again at `Channel.next_timer` at the latest. A channel outlives
its WebSockets: after a new one is open, call `Channel.reconnected`.

The agent throws data away that come before its handshake is complete, and refuses those that come before it has
connected to its port. So data wait for the first, and a moment more for the agent's own first bytes: an SSH
server speaks first.
"""

from __future__ import annotations

import itertools
import math
import uuid
from collections import deque
from collections.abc import Callable

import attrs

from session_proxy.protocol.ssm_frames import (
    UNSEQUENCED_FLAGS,
    Flag,
    Frame,
    MalformedFrameError,
    MessageType,
    PayloadType,
)
from session_proxy.protocol.ssm_messages import (
    Acknowledge,
    ActionStatus,
    AgentFeatures,
    ChannelClosed,
    HandshakeComplete,
    HandshakeRequest,
    HandshakeResponse,
    MalformedMessageError,
    ProcessedAction,
    RequestedAction,
)
from session_proxy.protocol.ssm_reliability import Pacer, ReceiveBuffer, SendBuffer

# How long the agent may take to connect to its port before data are tried on it, in seconds.
FIRST_DATA_HOLD = 0.1

# Frames that may go back to back: AWS looks at the rate over about two seconds.
BURST_SECONDS = 0.05

# Acknowledgements go first, but one of so many frames is left to the others: else a download at the agent's
# fastest would hold up what the user types, and what the SSH session must answer.
OTHERS_SHARE = 8

SESSION_TYPE = "SessionType"
PORT = "Port"


@attrs.frozen
class Ready:
    """The handshake is complete. *customer_message* is for the user, never for the byte stream."""

    agent_version: str
    features: AgentFeatures
    customer_message: str


@attrs.frozen
class HandshakeRefused:
    """The agent asked for something that a port session cannot have, or for nothing that can be read."""

    reason: str


@attrs.frozen
class DataReceived:
    """The next bytes of the stream."""

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen
class FlagReceived:
    """The agent signals something about its port."""

    flag: int


@attrs.frozen
class Ended:
    """The service ended the session; *output* is its reason, "" for a normal end."""

    output: str


Event = Ready | HandshakeRefused | DataReceived | FlagReceived | Ended


@attrs.define
class Counters:
    """What happened to frames, for logs and metrics."""

    malformed: int = 0
    ignored: int = 0
    duplicates: int = 0
    retransmitted: int = 0


@attrs.define(eq=False, kw_only=True)
class Channel:
    """One session's data channel.

    *payload* is the most bytes per frame, *frames_per_second* bounds all frames, *new_id* makes message ids, and
    *epoch* is the Unix time at which *now* was 0.
    """

    new_id: Callable[[], uuid.UUID]
    epoch: float
    payload: int = 16384
    frames_per_second: int = 900
    hold: float = FIRST_DATA_HOLD
    sending: SendBuffer = attrs.field(factory=SendBuffer, init=False)
    receiving: ReceiveBuffer[Frame] = attrs.field(factory=ReceiveBuffer[Frame], init=False)
    _counters: Counters = attrs.field(factory=Counters, init=False)
    _pacer: Pacer = attrs.field(init=False)
    _events: deque[Event] = attrs.field(factory=deque[Event], init=False)
    # What is to be acknowledged, by sequence number: a frame that comes twice meanwhile needs one answer.
    _acks: dict[int, uuid.UUID] = attrs.field(factory=dict[int, uuid.UUID], init=False)
    _control: deque[tuple[PayloadType, bytes]] = attrs.field(
        factory=deque[tuple[PayloadType, bytes]], init=False
    )
    _data: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _agent_version: str = attrs.field(default="", init=False)
    _complete: bool = attrs.field(default=False, init=False)
    _data_from: float = attrs.field(default=math.inf, init=False)
    _others_turn: int = attrs.field(default=0, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._pacer = Pacer(self.frames_per_second, max(1.0, self.frames_per_second * BURST_SECONDS))

    # -- what arrives

    def receive_message(self, message: bytes | str, now: float) -> None:
        """Take one WebSocket message; text and binary are read alike. Bad ones are counted and dropped."""
        try:
            frame = Frame.decode(message.encode() if isinstance(message, str) else message)
            self._receive_frame(frame, now)
        except (MalformedFrameError, MalformedMessageError):
            self._counters.malformed += 1

    def next_event(self) -> Event | None:
        """Return what happened next, or `None`."""
        return self._events.popleft() if self._events else None

    def counters(self) -> Counters:
        """Return the counters as they are now."""
        return attrs.evolve(
            self._counters, duplicates=self.receiving.duplicates, retransmitted=self.sending.retransmitted
        )

    def _receive_frame(self, frame: Frame, now: float) -> None:
        match frame.message_type:
            case MessageType.OUTPUT_STREAM_DATA:
                self._receive_stream_frame(frame, now)
            case MessageType.ACKNOWLEDGE:
                self.sending.acknowledge(Acknowledge.from_payload(frame.payload).sequence_number, now)
            case MessageType.CHANNEL_CLOSED:
                self._end(frame)
            case _:
                self._counters.ignored += 1

    def _end(self, frame: Frame) -> None:
        # Whatever the payload says, the session is over.
        try:
            output = ChannelClosed.from_payload(frame.payload).output
        except MalformedMessageError:
            output = ""
        if not self._ended:
            self._ended = True
            self._events.append(Ended(output))

    def _receive_stream_frame(self, frame: Frame, now: float) -> None:
        number = frame.sequence_number
        if self.receiving.is_next(number):
            self._acks[number] = frame.message_id
            self.receiving.advance()
            self._deliver(frame, now)
            while (early := self.receiving.pop()) is not None:
                self._deliver(early, now)
        elif self.receiving.keep(number, frame, len(frame.payload)):
            self._acks[number] = frame.message_id

    def _deliver(self, frame: Frame, now: float) -> None:
        match frame.payload_type:
            case PayloadType.OUTPUT:
                if self._complete:
                    # The agent's port answers: no need to hold data any longer.
                    self._data_from = min(self._data_from, now)
                self._events.append(DataReceived(frame.payload))
            case PayloadType.HANDSHAKE_REQUEST | PayloadType.HANDSHAKE_COMPLETE:
                self._shake_hands(frame, now)
            case PayloadType.FLAG:
                self._events.append(FlagReceived(int.from_bytes(frame.payload[:4], "big")))
            case _:
                self._counters.ignored += 1

    def _shake_hands(self, frame: Frame, now: float) -> None:
        try:
            if frame.payload_type == PayloadType.HANDSHAKE_REQUEST:
                self._answer(HandshakeRequest.from_payload(frame.payload))
            else:
                self._finish(HandshakeComplete.from_payload(frame.payload), now)
        except MalformedMessageError as exc:
            # Its digest was right, so the agent would only say the same again. The reference acknowledges it
            # and then waits for ever.
            self._counters.malformed += 1
            self._events.append(HandshakeRefused(str(exc)))

    def _finish(self, complete: HandshakeComplete, now: float) -> None:
        self._complete = True
        self._data_from = now + self.hold
        features = AgentFeatures.of(self._agent_version)
        self._events.append(Ready(self._agent_version, features, complete.customer_message))

    def _answer(self, request: HandshakeRequest) -> None:
        self._agent_version = request.agent_version
        outcomes = [_process(action) for action in request.actions]
        errors = tuple(error for _, error in outcomes if error)
        response = HandshakeResponse(tuple(action for action, _ in outcomes), errors)
        self._control.append((PayloadType.HANDSHAKE_RESPONSE, response.to_payload()))
        if errors:
            self._events.append(HandshakeRefused("; ".join(errors)))

    # -- what is to be sent

    @property
    def ended(self) -> bool:
        """Whether the service has ended the session."""
        return self._ended

    @property
    def unacknowledged(self) -> int:
        """Frames from the agent whose acknowledgement waits for its turn; the caller bounds them."""
        return len(self._acks)

    @property
    def unsent(self) -> int:
        """Bytes of data that have not been put into a frame yet; the caller bounds them."""
        return len(self._data)

    @property
    def drained(self) -> bool:
        """Whether everything was sent and acknowledged."""
        return not (self._data or self._control or len(self.sending))

    def send_data(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes of the stream."""
        self._data += data

    def send_flag(self, flag: Flag) -> None:
        """Queue a signal to the agent; it overtakes data that are still queued."""
        self._control.append((PayloadType.FLAG, flag.to_payload()))

    def messages_to_send(self, now: float) -> list[bytes]:
        """Return the messages that may be sent now: acknowledgements, then repeats, then new frames."""
        budget = self._pacer.available(now)
        if not budget:
            return []
        messages = self._acknowledgements(budget, now)
        messages += self.sending.overdue(now, budget - len(messages))
        while len(messages) < budget and (following := self._next_frame(now)) is not None:
            messages.append(following)
        self._pacer.spend(len(messages))
        return messages

    def _acknowledgements(self, budget: int, now: float) -> list[bytes]:
        most = budget
        others = self._control or self._data_may_go(now) or self.sending.next_deadline() <= now
        if len(self._acks) >= budget and others:
            self._others_turn += budget
            most -= min(budget, self._others_turn // OTHERS_SHARE)
            self._others_turn %= OTHERS_SHARE
        date = self._date(now)
        return [self._acknowledgement(number, date) for number in list(itertools.islice(self._acks, most))]

    def _acknowledgement(self, number: int, date: int) -> bytes:
        ack = Acknowledge(MessageType.OUTPUT_STREAM_DATA, str(self._acks.pop(number)), number)
        return Frame(
            message_type=MessageType.ACKNOWLEDGE,
            message_id=self.new_id(),
            created_date=date,
            flags=UNSEQUENCED_FLAGS,
            payload=ack.to_payload(),
        ).encode()

    def next_timer(self, now: float) -> float:
        """Return when `messages_to_send` wants to be called, though nothing has arrived; may be infinite."""
        timer = self.sending.next_deadline()
        if self._acks or self._control:
            timer = min(timer, now)
        elif self._data and self.sending.has_room:
            timer = min(timer, self._data_from)
        return max(timer, self._pacer.next_token(now)) if timer < math.inf else timer

    def reconnected(self, now: float) -> None:
        """Say that a new WebSocket carries the session: what was not acknowledged is sent again."""
        self.sending.resend_all(now)

    def _next_frame(self, now: float) -> bytes | None:
        if self._control:
            # Few and small: they need no room in the window.
            payload_type, payload = self._control.popleft()
        elif self._data_may_go(now):
            payload_type = PayloadType.OUTPUT
            with memoryview(self._data) as view:
                payload = bytes(view[: self.payload])
            del self._data[: len(payload)]
        else:
            return None
        message = Frame(
            message_type=MessageType.INPUT_STREAM_DATA,
            message_id=self.new_id(),
            created_date=self._date(now),
            sequence_number=self.sending.next_sequence,
            payload_type=payload_type,
            payload=payload,
        ).encode()
        self.sending.add(message, now)
        return message

    def _data_may_go(self, now: float) -> bool:
        return bool(self._data) and now >= self._data_from and self.sending.has_room

    def _date(self, now: float) -> int:
        return int((self.epoch + now) * 1000)


def _process(action: RequestedAction) -> tuple[ProcessedAction, str]:
    """Return the answer to *action*, and what is wrong with it, "" where nothing is."""
    if action.action_type != SESSION_TYPE:
        # KMS encryption among others: the agent itself never asks for it on a port session.
        error = f"Unsupported action {action.action_type}"
        return ProcessedAction(action.action_type, ActionStatus.UNSUPPORTED, error), error
    if action.session_type != PORT:
        error = f"Unknown session type {action.session_type}"
        failed = f"Failed to process action {SESSION_TYPE}: {error}"
        return ProcessedAction(action.action_type, ActionStatus.FAILED, failed), error
    return ProcessedAction(action.action_type, ActionStatus.SUCCESS), ""
