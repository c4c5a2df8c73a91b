"""Many streams in one session, each with windows of its own, so that one that stalls holds up no other.

Both ends grant each other bytes per stream (WINDOW); who sends more than was granted is cut off, so that what a peer
can make us keep is bounded: a window per stream, and so many streams. A stream begins with OPEN, which the other end
answers with OPENED or REFUSED, and ends when both directions have (EOF), or at once (RESET).
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from typing import Protocol

import attrs

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import MAX_PAYLOAD, Buffer, Frame, FrameType

_CREDIT = struct.Struct(">I")
_CODE = struct.Struct(">B")

# A line for people.
MAX_REASON = 255


class Reason(enum.IntEnum):
    """Why a stream was refused or reset."""

    UNSPECIFIED = 0
    NOT_ALLOWED = 1
    NO_SUCH_SERVICE = 2
    UNREACHABLE = 3
    REFUSED = 4
    TIMED_OUT = 5
    LIMIT = 6
    BROKEN = 7
    """The connection that the stream led to was reset."""
    SESSION_LOST = 8
    """The session ended before the stream."""


_REASONS = {int(reason): reason for reason in Reason}


@attrs.frozen
class StreamOpened:
    """The peer opens a stream, and says with *request* where to."""

    stream: int
    request: bytes = attrs.field(repr=False)


@attrs.frozen
class StreamAccepted:
    """The peer has accepted a stream of ours."""

    stream: int


@attrs.frozen
class StreamRefused:
    """The peer has not; the stream is over."""

    stream: int
    reason: Reason
    detail: str


@attrs.frozen
class DataReceived:
    """Bytes of a stream; say `Multiplexer.consumed` when they are no longer kept."""

    stream: int
    data: Buffer = attrs.field(repr=False)


@attrs.frozen
class EndReceived:
    """The peer sends no more on a stream."""

    stream: int


@attrs.frozen
class StreamReset:
    """A stream is over, before its time."""

    stream: int
    reason: Reason
    detail: str


@attrs.frozen
class CreditReceived:
    """More may be sent on a stream."""

    stream: int


StreamEvent = (
    StreamOpened | StreamAccepted | StreamRefused | DataReceived | EndReceived | StreamReset | CreditReceived
)


class Sender(Protocol):
    """What takes the frames of streams."""

    def add(self, kind: FrameType, stream: int, payload: Buffer = b"") -> None:
        """Send a frame, however long it takes."""
        ...


class _Half(enum.Enum):
    WAITING = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()


@attrs.define(eq=False)
class _Stream:
    credit: int
    # What the peer may still send, and what of that the reader has taken since the last WINDOW.
    granted: int
    taken: int = 0
    sending: _Half = _Half.WAITING
    receiving: _Half = _Half.WAITING


@attrs.define(eq=False)
class Multiplexer:
    """The streams of one end of a session.

    Attributes:
      sender: Takes the frames.
      initiator: Whether this end began the session: its streams have odd numbers, the other end's even ones.
      window: Bytes that each side grants the other per stream at first, and keeps granted.
      most_streams: How many the peer may have open at once.

    """

    sender: Sender
    initiator: bool
    window: int
    most_streams: int
    _streams: dict[int, _Stream] = attrs.field(factory=dict[int, _Stream])
    _next: int = attrs.field(init=False)
    _peer_next: int = attrs.field(init=False)
    _peer_open: int = attrs.field(default=0, init=False)
    _events: deque[StreamEvent] = attrs.field(factory=deque[StreamEvent], init=False)

    def __attrs_post_init__(self) -> None:
        self._next, self._peer_next = (1, 2) if self.initiator else (2, 1)

    @property
    def open_streams(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    def take_events(self) -> list[StreamEvent]:
        """Return what has happened."""
        events = list(self._events)
        self._events.clear()
        return events

    # -- what the owner does

    def open(self, request: bytes) -> int:
        """Open a stream with a *request* of at most `MAX_PAYLOAD` bytes; return its number."""
        stream = self._next
        self._next += 2
        self._streams[stream] = _Stream(0, self.window)
        self.sender.add(FrameType.OPEN, stream, _CREDIT.pack(self.window) + request)
        return stream

    def accept(self, stream: int) -> None:
        """Accept a stream that the peer opens; one that is over is let be."""
        state = self._streams.get(stream)
        if state is not None and state.sending is _Half.WAITING:
            state.sending = state.receiving = _Half.OPEN
            self.sender.add(FrameType.OPENED, stream, _CREDIT.pack(self.window))

    def refuse(self, stream: int, reason: Reason, detail: str = "") -> None:
        """Refuse a stream that the peer opens; one that is over is let be."""
        if stream in self._streams:
            self._forget(stream)
            self.sender.add(FrameType.REFUSED, stream, _reason(reason, detail))

    def room(self, stream: int) -> int:
        """Return how many bytes the peer still grants the stream; 0 for one that is over."""
        state = self._streams.get(stream)
        return state.credit if state is not None and state.sending is _Half.OPEN else 0

    def send(self, stream: int, data: Buffer) -> None:
        """Send *data*, which is not touched afterwards, and no more of it than there is `room` for."""
        state = self._streams[stream]
        assert state.sending is _Half.OPEN
        assert len(data) <= state.credit
        state.credit -= len(data)
        view = memoryview(data)
        for start in range(0, len(view), MAX_PAYLOAD):
            self.sender.add(FrameType.DATA, stream, view[start : start + MAX_PAYLOAD])

    def send_eof(self, stream: int) -> None:
        """Say that nothing more will be sent on the stream."""
        state = self._streams.get(stream)
        if state is not None and state.sending is _Half.OPEN:
            state.sending = _Half.ENDED
            self.sender.add(FrameType.EOF, stream)
            self._retire(stream, state)

    def consumed(self, stream: int, amount: int) -> None:
        """The reader took *amount* bytes: the peer may send as many more."""
        state = self._streams.get(stream)
        if state is None or state.receiving is not _Half.OPEN:
            return
        state.taken += amount
        if state.taken >= self.window // 2:
            self.sender.add(FrameType.WINDOW, stream, _CREDIT.pack(state.taken))
            state.granted += state.taken
            state.taken = 0

    def reset(self, stream: int, reason: Reason = Reason.UNSPECIFIED, detail: str = "") -> None:
        """End the stream at once."""
        if stream in self._streams:
            self._forget(stream)
            self.sender.add(FrameType.RESET, stream, _reason(reason, detail))

    def lose(self, reason: Reason, detail: str) -> None:
        """The session is over: so is every stream."""
        for stream in list(self._streams):
            self._forget(stream)
            self._events.append(StreamReset(stream, reason, detail))

    # -- what the peer says

    def receive(self, frame: Frame) -> None:
        """Heed a frame of a stream.

        What concerns a stream that is over, or has never been, is passed over: it may have crossed our RESET.

        Raises:
          RelayProtocolError: the peer breaks the rules, and must not be listened to any more.

        """
        if frame.type is FrameType.OPEN:
            self._opened(frame)
            return
        stream = frame.stream
        state = self._streams.get(stream)
        if state is None:
            if self._may_have_been(stream):
                return
            raise RelayProtocolError(f"{frame.type.name} for stream {stream}, which nobody opened")
        match frame.type:
            case FrameType.OPENED:
                self._accepted(stream, state, frame.payload)
            case FrameType.REFUSED:
                if state.receiving is not _Half.WAITING or not self._is_ours(stream):
                    raise RelayProtocolError(f"stream {stream} was refused after all")
                self._forget(stream)
                self._events.append(StreamRefused(stream, *_read_reason(frame.payload)))
            case FrameType.DATA:
                self._data(stream, state, frame.payload)
            case FrameType.WINDOW:
                state.credit += _read_credit(frame.payload)
                if state.sending is _Half.OPEN:
                    self._events.append(CreditReceived(stream))
            case FrameType.EOF:
                self._check_receiving(stream, state)
                state.receiving = _Half.ENDED
                self._events.append(EndReceived(stream))
                self._retire(stream, state)
            case FrameType.RESET:
                self._forget(stream)
                self._events.append(StreamReset(stream, *_read_reason(frame.payload)))
            case _:
                raise RelayProtocolError(f"{frame.type.name} does not concern a stream")

    def _opened(self, frame: Frame) -> None:
        stream = frame.stream
        if stream != self._peer_next:
            raise RelayProtocolError(f"stream {stream} was opened where {self._peer_next} is next")
        self._peer_next += 2
        credit = _read_credit(frame.payload[: _CREDIT.size])
        if self._peer_open >= self.most_streams:
            self.sender.add(FrameType.REFUSED, stream, _reason(Reason.LIMIT, "too many streams"))
            return
        self._peer_open += 1
        self._streams[stream] = _Stream(credit, self.window)
        self._events.append(StreamOpened(stream, bytes(frame.payload[_CREDIT.size :])))

    def _accepted(self, stream: int, state: _Stream, payload: Buffer) -> None:
        if state.sending is not _Half.WAITING or not self._is_ours(stream):
            raise RelayProtocolError(f"stream {stream} was accepted twice")
        state.credit = _read_credit(payload)
        state.sending = state.receiving = _Half.OPEN
        self._events.append(StreamAccepted(stream))

    def _data(self, stream: int, state: _Stream, data: Buffer) -> None:
        self._check_receiving(stream, state)
        state.granted -= len(data)
        if state.granted < 0:
            raise RelayProtocolError(f"stream {stream} overran its window by {-state.granted} bytes")
        self._events.append(DataReceived(stream, data))

    def _check_receiving(self, stream: int, state: _Stream) -> None:
        if state.receiving is not _Half.OPEN:
            raise RelayProtocolError(f"stream {stream} is not open for what was sent on it")

    def _is_ours(self, stream: int) -> bool:
        return stream % 2 == self._next % 2

    def _may_have_been(self, stream: int) -> bool:
        return 0 < stream < (self._next if self._is_ours(stream) else self._peer_next)

    def _retire(self, stream: int, state: _Stream) -> None:
        if state.sending is _Half.ENDED and state.receiving is _Half.ENDED:
            self._forget(stream)

    def _forget(self, stream: int) -> None:
        del self._streams[stream]
        if not self._is_ours(stream):
            self._peer_open -= 1


def _reason(reason: Reason, detail: str) -> bytes:
    return _CODE.pack(reason) + detail.encode("utf8", "replace")[:MAX_REASON]


def _read_reason(payload: Buffer) -> tuple[Reason, str]:
    data = bytes(payload)
    code = data[0] if data else 0
    detail = data[1 : 1 + MAX_REASON].decode("utf8", "replace")
    # It ends up in logs and on terminals.
    return _REASONS.get(code, Reason.UNSPECIFIED), "".join(
        character if character.isprintable() else "?" for character in detail
    )


def _read_credit(payload: Buffer) -> int:
    if len(payload) != _CREDIT.size:
        raise RelayProtocolError(f"a window of {len(payload)} bytes where {_CREDIT.size} say it")
    return int(_CREDIT.unpack(payload)[0])
