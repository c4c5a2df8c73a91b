"""Requests of one session; test_session.py has them over connections that are cut."""

from __future__ import annotations

import attrs
import pytest

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.exchanges import (
    MOST_DECLINED,
    ExchangeEvent,
    Exchanges,
    RequestLost,
    RequestReceived,
    ResponseReceived,
)
from tunnel_relay.protocol.frames import MAX_PAYLOAD, Buffer, Frame, FrameType
from tunnel_relay.protocol.requests import MAX_REQUEST, Cutter, Request, Response, Status

MIB = 1024 * 1024


@attrs.define(eq=False)
class Wire:
    """Takes the frames of one end."""

    frames: list[Frame] = attrs.field(factory=list[Frame])

    def add(self, kind: FrameType, stream: int, payload: Buffer = b"") -> None:
        self.frames.append(Frame(kind, 7, stream, 1, payload))


@attrs.define(eq=False)
class End:
    """One end and what it has to say."""

    wire: Wire
    exchanges: Exchanges

    @classmethod
    def new(cls, most: int = 3, most_bytes: int = MIB) -> End:
        wire = Wire()
        return cls(wire, Exchanges(wire, most, most_bytes))

    def say(self, other: End, room: int = 100 * MIB) -> list[ExchangeEvent]:
        """Carry over what there is to say; return what the *other* makes of it."""
        self.exchanges.fill(room)
        for frame in self.wire.frames:
            other.exchanges.receive(frame)
        self.wire.frames.clear()
        return other.exchanges.take_events()


def request(payload: bytes = b"hello", most: int = 1000, name: str = "id") -> Request:
    return Request(id=name, target="somewhere", payload=payload, most=most)


def done(payload: bytes = b"answer", name: str = "id") -> Response:
    return Response(id=name, status=Status.DONE, payload=payload)


def test_a_request_is_asked_and_answered() -> None:
    near, far = End.new(), End.new()
    number = near.exchanges.ask(request())
    assert near.say(far) == [RequestReceived(number, request())]
    far.exchanges.answer(number, done())
    assert far.say(near) == [ResponseReceived(number, done())]
    assert near.exchanges.idle
    assert far.exchanges.idle


def test_both_ends_may_ask() -> None:
    near, far = End.new(), End.new()
    here, there = near.exchanges.ask(request(b"near")), far.exchanges.ask(request(b"far"))
    assert near.say(far) == [RequestReceived(here, request(b"near"))]
    assert far.say(near) == [RequestReceived(there, request(b"far"))]
    near.exchanges.answer(there, done(b"to far"))
    far.exchanges.answer(here, done(b"to near"))
    assert near.say(far) == [ResponseReceived(there, done(b"to far"))]
    assert far.say(near) == [ResponseReceived(here, done(b"to near"))]


def test_the_longest_go_through_one_at_a_time() -> None:
    near, far = End.new(), End.new()
    longest = request(bytes(MAX_REQUEST), most=MAX_REQUEST)
    assert near.exchanges.may_ask(longest)
    number = near.exchanges.ask(longest)
    assert not near.exchanges.may_ask(request(b""))
    assert near.say(far) == [RequestReceived(number, longest)]
    far.exchanges.answer(number, done(bytes(MAX_REQUEST)))
    assert far.say(near) == [ResponseReceived(number, done(bytes(MAX_REQUEST)))]
    assert near.exchanges.may_ask(request())


def test_no_more_become_frames_than_there_is_room_for() -> None:
    near = End.new()
    near.exchanges.ask(request(bytes(10 * MAX_PAYLOAD)))
    near.exchanges.fill(0)
    assert near.wire.frames == []
    near.exchanges.fill(1)
    assert len(near.wire.frames) == 1
    near.exchanges.fill(2 * MAX_PAYLOAD + 1)
    assert len(near.wire.frames) == 4
    assert all(isinstance(frame.payload, bytes) for frame in near.wire.frames)


def test_a_short_one_does_not_wait_for_a_long_one() -> None:
    near, far = End.new(), End.new()
    near.exchanges.ask(request(bytes(10 * MAX_PAYLOAD), name="long"))
    short = near.exchanges.ask(request(b"short"))
    assert near.say(far, MAX_PAYLOAD + 1) == [RequestReceived(short, request(b"short"))]


def test_what_is_asked_is_bounded_at_both_ends() -> None:
    near = End.new(most=2)
    for name in ("one", "two"):
        near.exchanges.ask(request(name=name))
    assert not near.exchanges.may_ask(request())
    near = End.new()
    near.exchanges.ask(request(bytes(MIB // 2), most=MIB // 2 - 10))
    assert near.exchanges.may_ask(request(b"12345", most=5))
    assert not near.exchanges.may_ask(request(b"123456", most=5))


def test_what_is_too_much_is_answered_early_and_its_rest_is_passed_over() -> None:
    near, far = End.new(), End.new(most=1)
    first = near.exchanges.ask(request(name="first"))
    long = near.exchanges.ask(request(bytes(3 * MAX_PAYLOAD), name="long"))
    assert near.say(far, MAX_PAYLOAD) == [RequestReceived(first, request(name="first"))]
    near.exchanges.fill(MAX_PAYLOAD)
    busy = Response(id="long", status=Status.BUSY, detail="too many requests are under way")
    assert far.say(near) == [ResponseReceived(long, busy)]
    # One piece was on its way, and no more leave.
    assert len(near.wire.frames) == 1
    assert near.say(far) == []
    far.exchanges.answer(first, done(name="first"))
    far.say(near)
    again = near.exchanges.ask(request())
    assert near.say(far) == [RequestReceived(again, request())]


def test_the_bytes_that_a_peer_asks_for_are_counted() -> None:
    near, far = End.new(), End.new(most_bytes=1000)
    near.exchanges.ask(request(b"12345", most=600))
    assert len(near.say(far)) == 1
    declined = near.exchanges.ask(request(b"12345", most=391))
    assert near.say(far) == []
    event = far.say(near)[0]
    assert isinstance(event, ResponseReceived)
    assert (event.number, event.response.status) == (declined, Status.BUSY)
    near.exchanges.ask(request(b"12345", most=390))
    assert len(near.say(far)) == 1


def test_whoever_asks_on_and_on_is_cut_off() -> None:
    near, far = End.new(most=MOST_DECLINED + 2), End.new(most=1)
    for name in range(MOST_DECLINED + 1):
        near.exchanges.ask(request(b"", 0, name=str(name)))
    near.say(far)
    near.exchanges.ask(request())
    with pytest.raises(RelayProtocolError, match="1024 requests too many"):
        near.say(far)


def test_answers_that_decline_are_not_counted_once_they_have_left() -> None:
    near, far = End.new(most=10), End.new(most=1)
    near.exchanges.ask(request(b"", 0))
    for _ in range(MOST_DECLINED + 1):
        number = near.exchanges.ask(request(b"", 0))
        near.say(far)
        answer = far.say(near)[0]
        assert isinstance(answer, ResponseReceived)
        assert (answer.number, answer.response.status) == (number, Status.BUSY)


def test_a_request_that_was_given_up_before_it_left_does_not() -> None:
    near, far = End.new(), End.new()
    near.exchanges.abandon(near.exchanges.ask(request()))
    assert near.exchanges.idle
    number = near.exchanges.ask(request(b"next"))
    assert near.say(far) == [RequestReceived(number, request(b"next"))]


def test_one_that_is_on_its_way_is_done_and_its_response_passed_over() -> None:
    near, far = End.new(most=1), End.new()
    number = near.exchanges.ask(request(bytes(2 * MAX_PAYLOAD)))
    assert near.say(far, 1) == []
    near.exchanges.abandon(number)
    assert not near.exchanges.may_ask(request())
    assert len(near.say(far)) == 1
    far.exchanges.answer(number, done())
    assert far.say(near) == []
    assert near.exchanges.idle
    near.exchanges.abandon(number)


def test_a_session_that_ends_gives_up_what_is_waited_for() -> None:
    near, far = End.new(), End.new()
    first, second = near.exchanges.ask(request(b"1")), near.exchanges.ask(request(b"2"))
    near.say(far)
    near.exchanges.abandon(second)
    for end in (near, far):
        end.exchanges.lose("gone")
    assert near.exchanges.take_events() == [RequestLost(first, "gone")]
    assert far.exchanges.take_events() == []
    far.exchanges.answer(first, done())
    assert far.say(near) == []


def piece(kind: FrameType, number: int, message: Request | Response, index: int = 0) -> Frame:
    """Return a frame with that piece of *message*."""
    cutter = Cutter(message)
    return Frame(kind, 7, number, 1, [cutter.next() for _ in range(index + 1)][-1])


ASK, SAY = FrameType.REQUEST, FrameType.RESPONSE
LONG = request(bytes(2 * MAX_PAYLOAD))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([piece(ASK, 0, request())], "request 0 came behind 0"),
        ([piece(ASK, 2, request()), piece(ASK, 1, request())], "request 1 came behind 2"),
        ([piece(ASK, 1, request()), piece(ASK, 1, request())], "request 1 came behind 1"),
        ([piece(ASK, 1, LONG), piece(ASK, 1, LONG)], "REQUEST 1 begins twice"),
        ([piece(ASK, 1, LONG, 1)], "REQUEST 1 goes on that has not begun"),
        ([piece(ASK, 1, LONG)] + [piece(ASK, 1, LONG, 1)] * 2, "REQUEST 1 is longer than it said"),
        ([piece(ASK, 1, LONG), Frame(ASK, 7, 1, 1, b"\x00")], "REQUEST 1 is longer than it said"),
        ([piece(SAY, 1, done(b""))], "a response to request 1, which nobody made"),
        ([piece(SAY, 5, LONG, 1)], "RESPONSE 5 goes on that has not begun"),
    ],
)
def test_whoever_breaks_the_rules_is_told_so(frames: list[Frame], words: str) -> None:
    end = End.new()
    *before, last = frames
    for frame in before:
        end.exchanges.receive(frame)
    with pytest.raises(RelayProtocolError, match=words):
        end.exchanges.receive(last)


@pytest.mark.parametrize("response", [done(b"x" * 1001), done(name="another")])
def test_a_response_has_to_fit_its_request(response: Response) -> None:
    end = End.new()
    number = end.exchanges.ask(request(most=1000))
    with pytest.raises(RelayProtocolError, match="the response to request 1 does not fit it"):
        end.exchanges.receive(piece(SAY, number, response))


def test_a_request_is_answered_once() -> None:
    near, far = End.new(), End.new()
    number = near.exchanges.ask(request())
    near.say(far)
    far.exchanges.answer(number, done())
    far.exchanges.answer(number, done(b"again"))
    assert far.say(near) == [ResponseReceived(number, done())]
