"""Two ends of a data channel over a link that loses, delays, reorders and duplicates, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import uuid

import attrs

from session_proxy.protocol.ssm_channel import Channel, DataReceived
from session_proxy.protocol.ssm_frames import Frame, MessageType, PayloadType
from session_proxy.protocol.ssm_messages import Acknowledge
from session_proxy.protocol.ssm_reliability import ReceiveBuffer, SendBuffer
from tests.support.ssm import make_channel, ready_channel


@attrs.define(eq=False, kw_only=True)
class Weather:
    """What the link does to each message: probabilities, and seconds."""

    loss: float = 0.0
    duplicates: float = 0.0
    delay: float = 0.02
    jitter: float = 0.0
    down: tuple[tuple[float, float], ...] = ()
    """Spans of time in which nothing arrives."""


@attrs.define(eq=False)
class MirrorAgent:
    """An agent made of our own pieces: it acknowledges, keeps order, and resends."""

    payload: int = 1024
    pace: float = 0.001
    """Seconds between its frames, as the real one sleeps."""
    refuse_until: float = 0.0
    """Data in order are refused before: the port is not connected."""
    serve: float = 0.0
    """Seconds that its port takes for each frame of data; it acknowledges a frame when it was taken."""
    received: bytearray = attrs.field(factory=bytearray, init=False)
    outgoing: bytearray = attrs.field(factory=bytearray, init=False)
    sending: SendBuffer = attrs.field(factory=SendBuffer, init=False)
    receiving: ReceiveBuffer[Frame] = attrs.field(factory=ReceiveBuffer[Frame], init=False)
    busy_until: float = attrs.field(default=0.0, init=False)
    _acks: list[tuple[float, Frame]] = attrs.field(factory=list[tuple[float, Frame]], init=False)
    _next_send: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        # The handshake is over; each side has used two and one numbers.
        self.sending.next_sequence = 2
        self.receiving.expected = 1

    def receive_message(self, message: bytes, now: float) -> None:
        frame = Frame.decode(message)
        if frame.message_type == MessageType.ACKNOWLEDGE:
            self.sending.acknowledge(Acknowledge.from_payload(frame.payload).sequence_number, now)
        elif self.receiving.is_next(frame.sequence_number):
            if now < self.refuse_until:
                return
            self.receiving.advance()
            self._take(frame, now)
            while (early := self.receiving.pop()) is not None:
                self._take(early, now)
        elif self.receiving.keep(frame.sequence_number, frame, len(frame.payload)):
            self._acks.append((now, frame))

    def _take(self, frame: Frame, now: float) -> None:
        if frame.payload_type == PayloadType.OUTPUT:
            self.received += frame.payload
        self.busy_until = max(now, self.busy_until) + self.serve
        self._acks.append((self.busy_until, frame))

    def messages_to_send(self, now: float) -> list[bytes]:
        messages = [self._ack(frame) for when, frame in self._acks if when <= now]
        self._acks = [(when, frame) for when, frame in self._acks if when > now]
        messages += self.sending.overdue(now, 1000)
        while self.outgoing and now >= self._next_send and self.sending.has_room:
            message = self._stream_frame(bytes(self.outgoing[: self.payload]))
            del self.outgoing[: self.payload]
            self.sending.add(message, now)
            messages.append(message)
            self._next_send = max(self._next_send, now - self.pace) + self.pace
        return messages

    def next_timer(self) -> float:
        timer = min((when for when, _ in self._acks), default=math.inf)
        if self.outgoing and self.sending.has_room:
            timer = min(timer, self._next_send)
        return min(timer, self.sending.next_deadline())

    def _ack(self, frame: Frame) -> bytes:
        payload = Acknowledge(frame.message_type, str(frame.message_id), frame.sequence_number).to_payload()
        return Frame(
            message_type=MessageType.ACKNOWLEDGE, message_id=uuid.UUID(int=1), created_date=1, payload=payload
        ).encode()

    def _stream_frame(self, payload: bytes) -> bytes:
        number = self.sending.next_sequence
        return Frame(
            message_type=MessageType.OUTPUT_STREAM_DATA,
            message_id=uuid.UUID(int=number),
            created_date=1,
            sequence_number=number,
            payload_type=PayloadType.OUTPUT,
            payload=payload,
        ).encode()


class World:
    """The link, the clock, and both ends. `run` until everything arrived."""

    def __init__(
        self, weather: Weather, *, seed: int, agent: MirrorAgent | None = None, channel: Channel | None = None
    ) -> None:
        self.weather = weather
        self.agent = agent or MirrorAgent()
        self.channel = channel or ready_channel(frames_per_second=900)
        self.now = 0.0
        self.sent = 0
        """Messages that the client sent."""
        self.sent_bytes = 0
        self.most_unacked = 0
        self.received = bytearray()
        self._random = random.Random(seed)
        self._order = itertools.count()
        self._flying: list[tuple[float, int, bool, bytes]] = []

    def step(self) -> bool:
        """Move to the next moment at which something happens; `False` where nothing will."""
        self._pump()
        when = min(
            self._flying[0][0] if self._flying else math.inf,
            self.channel.next_timer(self.now),
            self.agent.next_timer(),
        )
        if when == math.inf:
            return False
        # Clocks go on: a timer for now is one for a moment later.
        self.now = max(when, self.now + 1e-6)
        while self._flying and self._flying[0][0] <= self.now:
            _, _, to_agent, message = heapq.heappop(self._flying)
            (self.agent if to_agent else self.channel).receive_message(message, self.now)
        while (event := self.channel.next_event()) is not None:
            if isinstance(event, DataReceived):
                self.received += event.data
        return True

    def run(self, *, until: float) -> None:
        """Go on until nothing is left to do; fail where that takes longer than *until*."""
        while self.step():
            if self.now >= until:
                raise AssertionError(f"not finished after {until} s")
            if self.channel.drained and not (self.agent.outgoing or len(self.agent.sending)):
                return

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end and self.step():
            pass

    def _pump(self) -> None:
        for message in self.channel.messages_to_send(self.now):
            self.sent += 1
            self.sent_bytes += len(message)
            self._send(message, to_agent=True)
        self.most_unacked = max(self.most_unacked, self.channel.sending.unacked_bytes)
        for message in self.agent.messages_to_send(self.now):
            self._send(message, to_agent=False)

    def _send(self, message: bytes, *, to_agent: bool) -> None:
        weather, rng = self.weather, self._random
        copies = 2 if rng.random() < weather.duplicates else 1
        for _ in range(copies):
            if rng.random() < weather.loss or any(a <= self.now < b for a, b in weather.down):
                continue
            arrives = self.now + weather.delay + rng.random() * weather.jitter
            heapq.heappush(self._flying, (arrives, next(self._order), to_agent, message))


__all__ = ["MirrorAgent", "Weather", "World", "make_channel"]
