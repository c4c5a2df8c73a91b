"""Streams of a session that is never lost."""

from __future__ import annotations

import attrs
import pytest

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import MAX_PAYLOAD, Buffer, Frame, FrameType
from tunnel_relay.protocol.multiplexer import (
    CreditReceived,
    DataReceived,
    EndReceived,
    Multiplexer,
    Reason,
    StreamAccepted,
    StreamOpened,
    StreamRefused,
    StreamReset,
)

WINDOW = 1000


@attrs.define(eq=False)
class Wire:
    """Takes frames, for the other end."""

    frames: list[Frame] = attrs.field(factory=list[Frame])

    def add(self, kind: FrameType, stream: int, payload: Buffer = b"") -> None:
        """See `Sender.add`."""
        self.frames.append(Frame(kind, 1, stream, 1, payload))


@attrs.define(eq=False)
class Couple:
    """Two ends, and what lies between."""

    client: Multiplexer
    agent: Multiplexer
    up: Wire
    down: Wire

    @classmethod
    def meet(cls, window: int = WINDOW) -> Couple:
        """Return two ends that have said nothing."""
        up, down = Wire(), Wire()
        return cls(Multiplexer(up, True, window, 3), Multiplexer(down, False, window, 3), up, down)

    def pump(self) -> None:
        """Carry over what was said."""
        for wire, end in ((self.up, self.agent), (self.down, self.client)):
            frames, wire.frames = wire.frames, []
            for frame in frames:
                end.receive(frame)

    def stream(self) -> int:
        """Return an open stream, its events taken."""
        stream = self.client.open(b"where to")
        self.pump()
        assert self.agent.take_events() == [StreamOpened(stream, b"where to")]
        self.agent.accept(stream)
        self.pump()
        assert self.client.take_events() == [StreamAccepted(stream)]
        return stream


def test_both_ends_open_streams_with_numbers_of_their_own() -> None:
    couple = Couple.meet()
    assert [couple.client.open(b""), couple.agent.open(b""), couple.client.open(b"")] == [1, 2, 3]
    couple.pump()
    assert couple.client.take_events() == [StreamOpened(2, b"")]
    assert couple.agent.take_events() == [StreamOpened(1, b""), StreamOpened(3, b"")]


def test_a_window_fills_and_opens_again() -> None:
    """For as long as the reader takes what comes, any amount gets through."""
    couple = Couple.meet()
    stream = couple.stream()
    for _ in range(20):
        assert couple.client.room(stream) == WINDOW
        couple.client.send(stream, bytes(WINDOW))
        assert couple.client.room(stream) == 0
        couple.pump()
        [event] = couple.agent.take_events()
        assert isinstance(event, DataReceived)
        couple.agent.consumed(stream, WINDOW // 2 - 1)
        couple.pump()
        assert couple.client.take_events() == []
        couple.agent.consumed(stream, WINDOW // 2 + 1)
        couple.pump()
        assert couple.client.take_events() == [CreditReceived(stream)]


def test_a_stream_that_stalls_holds_up_no_other() -> None:
    couple = Couple.meet()
    stalled, other = couple.stream(), couple.stream()
    couple.client.send(stalled, bytes(WINDOW))
    assert couple.client.room(stalled) == 0
    assert couple.client.room(other) == WINDOW


def test_a_stream_ends_when_both_directions_have() -> None:
    couple = Couple.meet()
    stream = couple.stream()
    couple.client.send(stream, b"question")
    couple.client.send_eof(stream)
    couple.client.send_eof(stream)
    couple.pump()
    assert couple.agent.take_events() == [DataReceived(stream, b"question"), EndReceived(stream)]
    assert couple.client.room(stream) == 0
    couple.agent.send(stream, b"answer")
    couple.agent.send_eof(stream)
    couple.pump()
    assert couple.client.take_events() == [DataReceived(stream, b"answer"), EndReceived(stream)]
    assert (couple.client.open_streams, couple.agent.open_streams) == (0, 0)


def test_a_reset_crosses_what_is_on_its_way() -> None:
    couple = Couple.meet()
    stream = couple.stream()
    couple.client.send(stream, b"too late")
    couple.client.send_eof(stream)
    couple.agent.reset(stream, Reason.BROKEN, "connection\nreset")
    couple.pump()
    assert couple.agent.take_events() == []
    assert couple.client.take_events() == [StreamReset(stream, Reason.BROKEN, "connection?reset")]


def test_a_refusal_says_why() -> None:
    couple = Couple.meet()
    stream = couple.client.open(b"nowhere")
    couple.pump()
    couple.agent.refuse(stream, Reason.NO_SUCH_SERVICE, "there is ssh")
    couple.agent.refuse(stream, Reason.NO_SUCH_SERVICE)
    couple.agent.accept(stream)
    couple.pump()
    assert couple.client.take_events() == [StreamRefused(stream, Reason.NO_SUCH_SERVICE, "there is ssh")]
    assert couple.client.room(stream) == 0


def test_streams_that_are_over_make_room_for_others() -> None:
    couple = Couple.meet()
    for _ in range(10):
        streams = [couple.client.open(b"") for _ in range(4)]
        couple.pump()
        assert len(couple.agent.take_events()) == 3
        couple.pump()
        assert couple.client.take_events() == [StreamRefused(streams[3], Reason.LIMIT, "too many streams")]
        for stream in streams[:3]:
            couple.client.reset(stream)
        couple.pump()
        couple.agent.take_events()


def test_what_is_long_is_cut() -> None:
    couple = Couple.meet(window=10 * MAX_PAYLOAD)
    stream = couple.stream()
    couple.client.send(stream, bytes(2 * MAX_PAYLOAD + 1))
    assert [len(frame.payload) for frame in couple.up.frames] == [MAX_PAYLOAD, MAX_PAYLOAD, 1]


def say(kind: FrameType, stream: int, payload: bytes = b"") -> Frame:
    """Return a frame out of the blue."""
    return Frame(kind, 1, stream, 1, payload)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (say(FrameType.DATA, 1, bytes(WINDOW + 1)), "overran its window by 1 bytes"),
        (say(FrameType.DATA, 3), "stream 3, which nobody opened"),
        (say(FrameType.DATA, 0), "stream 0, which nobody opened"),
        (say(FrameType.OPEN, 1, bytes(4)), "stream 1 was opened where 3 is next"),
        (say(FrameType.OPEN, 2, bytes(4)), "stream 2 was opened where 3 is next"),
        (say(FrameType.OPENED, 1, bytes(4)), "accepted twice"),
        (say(FrameType.REFUSED, 1), "refused after all"),
        (say(FrameType.WINDOW, 1, bytes(3)), "a window of 3 bytes"),
        (say(FrameType.REQUEST, 1), "REQUEST does not concern a stream"),
    ],
)
def test_whoever_breaks_the_rules_is_told_so(frame: Frame, words: str) -> None:
    couple = Couple.meet()
    couple.stream()
    with pytest.raises(RelayProtocolError, match=words):
        couple.agent.receive(frame)


def test_nothing_follows_an_end() -> None:
    couple = Couple.meet()
    stream = couple.stream()
    couple.client.send_eof(stream)
    couple.pump()
    for kind in (FrameType.DATA, FrameType.EOF):
        with pytest.raises(RelayProtocolError, match="is not open for what was sent on it"):
            couple.agent.receive(say(kind, stream))
