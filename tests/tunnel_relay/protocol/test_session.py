"""Sessions over connections that are cut at any moment.

Every byte of a stream arrives once and in order, or a reset says why; every request and every response arrives once.
"""

from __future__ import annotations

from collections import deque

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.exchanges import RequestLost, RequestReceived, ResponseReceived
from tunnel_relay.protocol.frames import MAX_PAYLOAD, Frame, FrameType, decode, encode
from tunnel_relay.protocol.multiplexer import (
    CreditReceived,
    DataReceived,
    EndReceived,
    Reason,
    StreamAccepted,
    StreamOpened,
    StreamRefused,
    StreamReset,
)
from tunnel_relay.protocol.requests import Request, Response, Status
from tunnel_relay.protocol.session import Session, SessionEvent, SessionSettings

SMALL = SessionSettings(
    window=1000,
    streams=4,
    kept=3000,
    requests=3,
    request_bytes=400_000,
    request_kept=100_000,
    frames=500,
    grace=10.0,
    acknowledge_bytes=600,
    acknowledge_frames=8,
    acknowledge_delay=0.05,
)

# Of payloads: in one piece, in several, and more than there is room for.
LENGTHS = st.one_of(st.integers(0, 2000), st.integers(0, 250_000))


@attrs.define(eq=False)
class End:
    """One end: its session, and what its application has seen."""

    session: Session
    # What is on its way to it, as messages.
    inbox: deque[bytes] = attrs.field(factory=deque[bytes])
    opened: set[int] = attrs.field(factory=set[int])
    waiting: list[int] = attrs.field(factory=list[int])
    over: dict[int, str] = attrs.field(factory=dict[int, str])
    sent: dict[int, bytearray] = attrs.field(factory=dict[int, bytearray])
    ended: set[int] = attrs.field(factory=set[int])
    got: dict[int, bytearray] = attrs.field(factory=dict[int, bytearray])
    unread: dict[int, int] = attrs.field(factory=dict[int, int])
    end_seen: set[int] = attrs.field(factory=set[int])
    # Requests by number: those it made, those it was asked, and what it has answered and been answered.
    asked: dict[int, Request] = attrs.field(factory=dict[int, Request])
    abandoned: set[int] = attrs.field(factory=set[int])
    requests: dict[int, Request] = attrs.field(factory=dict[int, Request])
    answered: dict[int, Response] = attrs.field(factory=dict[int, Response])
    responses: dict[int, Response] = attrs.field(factory=dict[int, Response])
    given_up: set[int] = attrs.field(factory=set[int])

    def heed(self, event: SessionEvent) -> None:
        """Do what an application does."""
        match event:
            case StreamOpened(stream):
                self.waiting.append(stream)
            case StreamAccepted(stream):
                self.opened.add(stream)
            case StreamRefused(stream, reason) | StreamReset(stream, reason):
                self.over[stream] = reason.name
                self.opened.discard(stream)
                if stream in self.waiting:
                    self.waiting.remove(stream)
            case DataReceived(stream, data):
                assert stream not in self.over
                assert stream not in self.end_seen
                self.got.setdefault(stream, bytearray()).extend(data)
                self.unread[stream] = self.unread.get(stream, 0) + len(data)
            case EndReceived(stream):
                self.end_seen.add(stream)
            case CreditReceived():
                pass
            case RequestReceived(number, request):
                assert number not in self.requests
                self.requests[number] = request
            case ResponseReceived(number, response):
                assert number in self.asked
                assert number not in self.abandoned | self.responses.keys()
                self.responses[number] = response
            case RequestLost(number):
                assert number not in self.abandoned | self.responses.keys()
                self.given_up.add(number)


class Sessions(RuleBasedStateMachine):
    """A client and an agent, and a connection that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.client = End(Session(initiator=True, settings=SMALL, since=0.0))
        # An agent that takes on less than the client would ask of it.
        fewer = attrs.evolve(SMALL, requests=2)
        self.agent = End(Session(initiator=False, settings=fewer, since=0.0))
        self.ends = (self.client, self.agent)
        self.label = 0
        self.counter = 0
        self.history: dict[int, list[Frame]] = {0: [], 1: []}
        self.resume()

    def is_lost(self) -> bool:
        return any(end.session.lost is not None for end in self.ends)

    def connected(self) -> bool:
        return all(end.session.attached for end in self.ends)

    def resume(self) -> None:
        self.label += 1
        received = [end.session.received for end in self.ends]
        self.client.session.attach(self.label, received[1])
        self.agent.session.attach(self.label, received[0])

    @precondition(lambda self: not self.connected() and not self.is_lost())
    @rule()
    def comes_back(self) -> None:
        self.resume()

    @precondition(lambda self: self.connected())
    @rule(lost=st.booleans())
    def is_cut(self, lost: bool) -> None:
        """What is on its way is lost; sometimes one end has still received it."""
        for end in self.ends:
            if not lost:
                self.deliver(end, len(end.inbox))
            end.inbox.clear()
            end.session.detach(self.now)

    @rule(which=st.integers(0, 1))
    def opens(self, which: int) -> None:
        end = self.ends[which]
        if end.session.lost is None and end.session.streams.open_streams < 10:
            end.sent[end.session.streams.open(b"somewhere")] = bytearray()

    @rule(which=st.integers(0, 1), accept=st.booleans())
    def answers(self, which: int, accept: bool) -> None:
        end = self.ends[which]
        if end.waiting:
            stream = end.waiting.pop(0)
            if accept:
                end.session.streams.accept(stream)
                end.opened.add(stream)
                end.sent[stream] = bytearray()
            else:
                end.session.streams.refuse(stream, Reason.NO_SUCH_SERVICE, "no")
                end.over[stream] = "refused"

    @rule(which=st.integers(0, 1), pick=st.integers(0, 9), amount=st.integers(1, 1500))
    def writes(self, which: int, pick: int, amount: int) -> None:
        end = self.ends[which]
        candidates = sorted(end.opened - end.ended)
        if candidates and end.session.lost is None:
            stream = candidates[pick % len(candidates)]
            room = min(end.session.room(stream), amount)
            if room:
                self.counter += 1
                data = (self.counter.to_bytes(4, "big") * (room // 4 + 1))[:room]
                end.session.streams.send(stream, data)
                end.sent[stream] += data

    @rule(which=st.integers(0, 1), pick=st.integers(0, 9))
    def ends_one(self, which: int, pick: int) -> None:
        end = self.ends[which]
        candidates = sorted(end.opened - end.ended)
        if candidates and end.session.lost is None:
            stream = candidates[pick % len(candidates)]
            end.session.streams.send_eof(stream)
            end.ended.add(stream)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 9))
    def resets(self, which: int, pick: int) -> None:
        end = self.ends[which]
        candidates = sorted(end.opened)
        if candidates and end.session.lost is None:
            stream = candidates[pick % len(candidates)]
            end.session.streams.reset(stream, Reason.BROKEN, "gone")
            end.over[stream] = "reset here"
            end.opened.discard(stream)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 9))
    def reads(self, which: int, pick: int) -> None:
        end = self.ends[which]
        candidates = sorted(stream for stream, unread in end.unread.items() if unread)
        if candidates:
            stream = candidates[pick % len(candidates)]
            end.session.streams.consumed(stream, end.unread.pop(stream))

    @rule(which=st.integers(0, 1), length=LENGTHS, most=LENGTHS)
    def asks(self, which: int, length: int, most: int) -> None:
        end = self.ends[which]
        request = Request(
            id=f"{which}-{self.counter}", target="somewhere", payload=self.payload(length), most=most
        )
        if end.session.lost is None and end.session.exchanges.may_ask(request):
            number = end.session.exchanges.ask(request)
            end.asked[number] = request

    @rule(which=st.integers(0, 1), pick=st.integers(0, 9))
    def abandons(self, which: int, pick: int) -> None:
        end = self.ends[which]
        candidates = sorted(end.asked.keys() - end.abandoned - end.responses.keys() - end.given_up)
        if candidates and end.session.lost is None:
            number = candidates[pick % len(candidates)]
            end.session.exchanges.abandon(number)
            end.abandoned.add(number)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 9), length=LENGTHS)
    def responds(self, which: int, pick: int, length: int) -> None:
        end = self.ends[which]
        candidates = sorted(end.requests.keys() - end.answered.keys())
        if candidates and end.session.lost is None:
            number = candidates[pick % len(candidates)]
            request = end.requests[number]
            payload = self.payload(min(length, request.most))
            response = Response(id=request.id, status=Status.DONE, payload=payload)
            end.session.exchanges.answer(number, response)
            end.answered[number] = response

    def payload(self, length: int) -> bytes:
        self.counter += 1
        return (self.counter.to_bytes(4, "big") * (length // 4 + 1))[:length]

    @rule(which=st.integers(0, 1), most=st.integers(1, 3000))
    def sends(self, which: int, most: int) -> None:
        self.send(which, most)

    def send(self, which: int, most: int) -> None:
        end, other = self.ends[which], self.ends[1 - which]
        frames = end.session.frames_to_send(most, self.now)
        if frames:
            self.history[which] = (self.history[which] + frames)[-30:]
            other.inbox.append(encode(frames))

    @rule(which=st.integers(0, 1), count=st.integers(1, 3))
    def delivers(self, which: int, count: int) -> None:
        self.deliver(self.ends[which], count)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 29))
    def repeats(self, which: int, pick: int) -> None:
        """An old frame comes again."""
        other = self.ends[1 - which]
        frames = [frame for frame in self.history[which] if frame.number <= other.session.received]
        if frames and self.connected():
            other.session.receive(frames[pick % len(frames)], self.now)
            assert other.session.take_events() == []

    def deliver(self, end: End, count: int) -> None:
        for _ in range(min(count, len(end.inbox))):
            for frame in decode(end.inbox.popleft()):
                assert frame.session == self.label
                end.session.receive(frame, self.now)
            for event in end.session.take_events():
                end.heed(event)

    @rule(seconds=st.sampled_from([0.01, 0.05, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends:
            timer = end.session.next_timer()
            if timer is not None and timer <= self.now:
                end.session.handle_timer(self.now)
            for event in end.session.take_events():
                end.heed(event)

    @invariant()
    def every_byte_arrives_once_and_in_order(self) -> None:
        for end, other in (self.ends, self.ends[::-1]):
            for stream, got in other.got.items():
                assert end.sent[stream].startswith(got)
                if stream in other.end_seen:
                    assert got == end.sent[stream]

    @invariant()
    def requests_and_responses_arrive_as_they_were_sent(self) -> None:
        for end, other in (self.ends, self.ends[::-1]):
            assert end.requests.items() <= other.asked.items()
            for number, response in end.responses.items():
                if response.status is Status.BUSY:
                    assert number not in other.requests
                else:
                    assert response == other.answered[number]

    @invariant()
    def memory_stays_within_bounds(self) -> None:
        for end in self.ends:
            # What is small goes beyond what may be kept of streams.
            of_requests = SMALL.request_kept + MAX_PAYLOAD
            assert end.session.kept <= SMALL.kept + 500 * 20 + of_requests
            assert all(unread <= SMALL.window for unread in end.unread.values())

    def teardown(self) -> None:
        """All that is not over gets through in the end, once the connection stays."""
        if self.is_lost():
            for end in self.ends:
                end.session.lose("the other end has")
                for event in end.session.take_events():
                    end.heed(event)
                assert end.session.streams.open_streams == 0
                assert end.asked.keys() == end.responses.keys() | end.abandoned | end.given_up
            return
        if not self.connected():
            self.resume()
        for _ in range(60):
            self.now += 0.05
            for which, end in enumerate(self.ends):
                self.answers(which, True)
                self.responds(which, 0, 1000)
                for stream in list(end.unread):
                    end.session.streams.consumed(stream, end.unread.pop(stream))
                for stream in list(end.opened - end.ended):
                    end.session.streams.send_eof(stream)
                    end.ended.add(stream)
                self.send(which, 100_000)
                self.deliver(self.ends[1 - which], 10)
        for end, other in (self.ends, self.ends[::-1]):
            assert end.session.streams.open_streams == 0
            assert end.session.kept == 0
            assert end.asked.keys() == end.responses.keys() | end.abandoned
            assert not end.responses.keys() & end.abandoned
            assert end.requests.keys() == end.answered.keys()
            assert end.session.exchanges.idle
            for stream, sent in end.sent.items():
                if stream not in end.over and stream not in other.over:
                    assert other.got.get(stream, bytearray()) == sent
                    assert stream in other.end_seen


Sessions.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestSessions = Sessions.TestCase


def couple() -> tuple[Session, Session]:
    """Two ends of a session over one connection."""
    client = Session(initiator=True, settings=SMALL, since=0.0)
    agent = Session(initiator=False, settings=SMALL, since=0.0)
    client.attach(7, 0)
    agent.attach(7, 0)
    return client, agent


def pump(source: Session, sink: Session, now: float = 0.0) -> list[SessionEvent]:
    """Carry over what *source* has to say; return what *sink* makes of it."""
    for frame in source.frames_to_send(1 << 20, now):
        sink.receive(frame, now)
    return sink.take_events()


def test_a_session_that_waits_too_long_loses_its_streams_and_says_why() -> None:
    client, _ = couple()
    stream = client.streams.open(b"somewhere")
    client.detach(5.0)
    assert client.next_timer() == 15.0
    client.handle_timer(14.9)
    assert client.lost is None
    client.handle_timer(15.0)
    assert client.take_events() == [StreamReset(stream, Reason.SESSION_LOST, "no connection for 10 s")]
    assert client.next_timer() is None


def test_a_window_that_is_overrun_is_noticed() -> None:
    client, agent = couple()
    stream = client.streams.open(b"somewhere")
    assert pump(client, agent) == [StreamOpened(stream, b"somewhere")]
    agent.streams.accept(stream)
    assert pump(agent, client) == [StreamAccepted(stream)]
    client.streams.send(stream, bytes(1000))
    pump(client, agent)
    number = client._outgoing.last + 1  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(RelayProtocolError, match="overran its window by 1 bytes"):
        agent.receive(Frame(FrameType.DATA, 7, stream, number, b"x"), 0.0)


def test_a_frame_that_is_missing_is_noticed() -> None:
    client, agent = couple()
    client.streams.open(b"one")
    client.streams.open(b"two")
    frames = client.frames_to_send(1000, 0.0)
    with pytest.raises(RelayProtocolError, match="frame 2 came behind 0"):
        agent.receive(frames[1], 0.0)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Frame(FrameType.ACK, number=1), "acknowledged 1, which was not sent"),
        (Frame(FrameType.PING), "PING does not belong"),
        (Frame(FrameType.EOF, stream=2, number=1), "stream 2, which nobody opened"),
        (Frame(FrameType.OPEN, stream=3, number=1, payload=bytes(4)), "opened where 1 is next"),
        (Frame(FrameType.OPEN, stream=1, number=1), "a window of 0 bytes"),
    ],
)
def test_whoever_breaks_the_rules_is_told_so(frame: Frame, words: str) -> None:
    _, agent = couple()
    with pytest.raises(RelayProtocolError, match=words):
        agent.receive(frame, 0.0)


def test_too_many_streams_are_refused() -> None:
    client, agent = couple()
    for _ in range(SMALL.streams + 1):
        client.streams.open(b"")
    assert len(pump(client, agent)) == SMALL.streams
    assert pump(agent, client) == [StreamRefused(9, Reason.LIMIT, "too many streams")]


def test_a_peer_that_acknowledges_nothing_is_cut_off() -> None:
    client, _ = couple()
    for _ in range(SMALL.frames):
        client.streams.open(b"")
    assert client.overrun == ""
    client.streams.open(b"")
    assert client.overrun == "the peer has not acknowledged 500 frames"
    with pytest.raises(RelayProtocolError, match="not acknowledged 500 frames"):
        client.receive(Frame(FrameType.ACK), 0.0)


def test_many_small_pieces_wait_as_large_ones_do() -> None:
    """Whoever writes byte by byte has no room any more before the session would have to be given up."""
    client, agent = couple()
    stream = client.streams.open(b"somewhere")
    pump(client, agent)
    agent.streams.accept(stream)
    pump(agent, client)
    client.detach(0.0)
    pieces = 0
    while client.room(stream):
        client.streams.send(stream, b"x")
        pieces += 1
    assert pieces < SMALL.frames
    assert client.overrun == ""
    assert client.kept < SMALL.kept


def test_streams_and_requests_do_not_take_each_other_s_room() -> None:
    client, agent = couple()
    stream = client.streams.open(b"somewhere")
    pump(client, agent)
    agent.streams.accept(stream)
    pump(agent, client)
    request = Request(id="id", target="somewhere", payload=bytes(390_000), most=0)
    client.exchanges.ask(request)
    frames = client.frames_to_send(1 << 20, 0.0)
    frames += client.frames_to_send(1 << 20, 0.0)
    assert [frame.type for frame in frames] == [FrameType.REQUEST] * 2
    assert client.room(stream) == 1000
    client.streams.send(stream, bytes(1000))
    frames += client.frames_to_send(1 << 20, 0.0)
    assert frames[-1].type is FrameType.DATA
    for frame in frames:
        agent.receive(frame, 0.0)
    assert [type(event) for event in agent.take_events()] == [DataReceived]
    events: list[SessionEvent] = []
    for _ in range(5):
        pump(agent, client, 1.0)
        events += pump(client, agent)
    assert events == [RequestReceived(1, request)]


def test_a_session_that_is_lost_says_so_of_its_requests() -> None:
    client, _ = couple()
    number = client.exchanges.ask(Request(id="id", target="somewhere", payload=b""))
    client.lose("gone")
    assert client.take_events() == [RequestLost(number, "gone")]


def test_what_follows_in_the_message_that_lost_it_opens_nothing() -> None:
    client, server = couple()
    server.lose("nonsense")
    server.take_events()
    stream = client.streams.open(b"late")
    assert stream
    assert pump(client, server) == []
