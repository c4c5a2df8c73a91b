"""What passes over a client's link, and what does not."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.policy.access import FREE, Access, Held
from tunnel_relay.policy.rate import Act, Rate, RateLimits, Rates
from tunnel_relay.protocol.frames import NUMBERED, Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, Hello, Resume, Welcome, read_go_away, write
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.refusal import read_refusal
from tunnel_relay.protocol.requests import Cutter, Request, Response, Status
from tunnel_relay.server.census import Census
from tunnel_relay.server.events import (
    Answered,
    Kind,
    LimitReached,
    Origin,
    RateExceeded,
    RelayEvent,
    SessionRefused,
)
from tunnel_relay.server.policing import CREDIT, MOST_LABELS, QUIET, Policing

ORIGIN = Origin(connection="c1", address="203.0.113.9")
GRANT = b"\0\1\0\0"
TIER = attrs.evolve(
    FREE,
    rates=Rates(requests=Rate(2, 60.0), opens=Rate(4, 1.0)),
    most={Held.SESSIONS: 1, Held.STREAMS: 6},
)


def token(number: int = 0) -> str:
    return f"{number:032x}"


@attrs.define(eq=False)
class World:
    """The links of a user, without links; frames are numbered as ends do."""

    census: Census = attrs.field(factory=lambda: Census(Access((TIER,))))
    rates: RateLimits = attrs.field(factory=lambda: RateLimits({}, TIER.rates))
    told: list[RelayEvent] = attrs.field(factory=list[RelayEvent])
    valid: bool = True

    def link(self) -> Link:
        """Return another link of the user."""
        return Link(self)


@attrs.define(eq=False)
class Link:
    """A link of the user's client."""

    world: World
    sent: list[Frame] = attrs.field(factory=list[Frame])
    held: float = 0.0
    parted: list[tuple[int, bool]] = attrs.field(factory=list[tuple[int, bool]])
    numbers: int = 0
    far_numbers: int = 0
    policing: Policing = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        world = self.world
        self.policing = Policing(
            origin=ORIGIN,
            user="alice",
            tier=lambda: "free",
            holds=lambda: world.valid,
            link=self,
            part=self.part,
            census=world.census,
            rates=world.rates,
            notify=world.told.append,
        )

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def hold(self, seconds: float) -> None:
        self.held = seconds

    def part(self, label: int, detail: str, *, lost: bool = False) -> None:
        assert detail
        self.parted.append((label, lost))

    def farewells(self) -> list[tuple[int, GoAway]]:
        """Return what the client was told of the ends of sessions since the last time."""
        sent, self.sent = self.sent, []
        assert {frame.type for frame in sent} <= {FrameType.GOAWAY}
        return [(frame.session, read_go_away(frame.payload)) for frame in sent]

    async def begin(self) -> None:
        """Have a session that was welcomed, and all tokens."""
        assert self.hello() is not None
        self.welcome()
        await trio.sleep(1)

    def welcome(self, received: int = 0, label: int = 1) -> None:
        self.hear(FrameType.WELCOME, payload=write(Welcome(instance="1", received=received)), label=label)

    def hello(self, number: int = 0, label: int = 1) -> Frame | None:
        hello = write(Hello(agent="nas", token=token(number), fence=1))
        return self.policing.coming(Frame(FrameType.HELLO, label, payload=hello))

    def resume(self, number: int = 0, label: int = 1) -> Frame | None:
        resume = Resume(agent="nas", instance="1", token=token(number), fence=2, received=0)
        return self.policing.coming(Frame(FrameType.RESUME, label, payload=write(resume)))

    def say(self, kind: FrameType, stream: int, payload: bytes = b"") -> Frame | None:
        """Have the client send a frame."""
        if kind in NUMBERED:
            self.numbers += 1
        return self.policing.coming(Frame(kind, 1, stream, self.numbers, payload))

    def open(self, stream: int) -> Frame | None:
        return self.say(FrameType.OPEN, stream, GRANT + b"ssh")

    def hear(self, kind: FrameType, stream: int = 0, payload: bytes = b"", *, label: int = 1) -> None:
        """Have the agent send one."""
        if kind in NUMBERED:
            self.far_numbers += 1
        number = self.far_numbers if kind in NUMBERED else 0
        self.policing.going(label, Frame(kind, 7, stream, number, payload))


def refusal(frame: Frame | None) -> tuple[Reason, str] | None:
    """Return why the agent is to refuse what *frame* asks for."""
    assert frame is not None
    return read_refusal(bytes(frame.payload)[CREDIT:])


async def test_what_is_allowed_passes_as_it_is(autojump_clock: MockClock) -> None:
    link = World().link()
    await link.begin()
    opened = link.open(1)
    assert opened is not None
    assert opened.payload == GRANT + b"ssh"
    data = link.say(FrameType.DATA, 1, b"x")
    assert data is not None
    assert data.payload == b"x"
    ack = Frame(FrameType.ACK, 1, number=3)
    assert link.policing.coming(ack) is ack
    assert link.world.told == []


async def test_how_long_answers_take(autojump_clock: MockClock) -> None:
    link = World().link()
    link.hello()
    link.welcome()
    for stream in (1, 3):
        link.open(stream)
    await trio.sleep(0.25)
    link.hear(FrameType.OPENED, 1)
    await trio.sleep(0.25)
    link.hear(FrameType.REFUSED, 3)
    assert link.world.census.streams == 1
    link.say(FrameType.EOF, 1)
    link.hear(FrameType.EOF, 1)
    assert link.world.census.streams == 0
    request = Request(id="r", target="nas:80", payload=b"x" * 100_000)
    cutter = Cutter(request)
    while not cutter.done:
        link.say(FrameType.REQUEST, 1, cutter.next())
    await trio.sleep(1)
    link.hear(FrameType.RESPONSE, 1, Cutter(Response(id="r", status=Status.DONE)).next())
    link.say(FrameType.REQUEST, 2, Cutter(attrs.evolve(request, payload=b"")).next())
    link.hear(FrameType.RESPONSE, 2, Cutter(Response(id="r", status=Status.REFUSED)).next())
    answers = [
        (event.kind, event.ok, event.seconds) for event in link.world.told if isinstance(event, Answered)
    ]
    assert answers == [
        (Kind.OPEN, True, pytest.approx(0.25)),
        (Kind.OPEN, False, pytest.approx(0.5)),
        (Kind.REQUEST, True, pytest.approx(1.0)),
        (Kind.REQUEST, False, pytest.approx(0.0)),
    ]
    assert len(link.world.told) == len(answers)


async def test_who_opens_too_often_is_not_heard_and_then_refused(autojump_clock: MockClock) -> None:
    link = World().link()
    await link.begin()
    for stream in range(1, 9, 2):
        assert refusal(link.open(stream)) is None
        link.say(FrameType.RESET, stream)
    assert link.held == 0
    for stream in range(9, 17, 2):
        assert refusal(link.open(stream)) is None
        link.say(FrameType.RESET, stream)
    assert link.held == pytest.approx(1.0)
    refused = refusal(link.open(17))
    assert refused == (Reason.LIMIT, "too many streams were opened of late; try again in 0.2 s")
    [first, second] = link.world.told
    assert isinstance(first, RateExceeded)
    assert (first.act, first.refused, first.times) == (Act.OPEN, False, 1)
    assert isinstance(second, RateExceeded)
    assert second.refused
    link.policing.end()
    last = link.world.told[-1]
    assert isinstance(last, RateExceeded)
    assert (last.refused, last.times) == (False, 3)


async def test_who_asks_too_often_is_not_heard(autojump_clock: MockClock) -> None:
    link = World().link()
    await link.begin()
    for number in range(1, 5):
        piece = Cutter(Request(id=f"r{number}", target="nas:80", payload=b"")).next()
        assert link.say(FrameType.REQUEST, number, piece) is not None
    assert link.held == pytest.approx(60.0)


async def test_streams_have_a_bound_and_others_go_on(autojump_clock: MockClock) -> None:
    link = World().link()
    await link.begin()
    for stream in range(1, 13, 2):
        assert refusal(link.open(stream)) is None
        await trio.sleep(1)
    refused = refusal(link.open(13))
    assert refused == (Reason.LIMIT, "6 streams are the most that the tier allows at a time")
    [event] = link.world.told
    assert isinstance(event, LimitReached)
    link.say(FrameType.RESET, 1)
    assert refusal(link.open(15)) is None


async def test_sessions_have_a_bound(autojump_clock: MockClock) -> None:
    link = World().link()
    assert link.hello(0, 1) is not None
    assert link.hello(1, 2) is None
    [frame] = link.sent
    assert (frame.type, frame.session) == (FrameType.GOAWAY, 2)
    assert read_go_away(frame.payload) == GoAway(
        lost=False, detail="1 sessions are the most that the tier allows at a time"
    )
    # The first one may be begun again, or be given up for another.
    assert link.hello(0, 1) is not None
    assert link.hello(1, 1) is not None
    link.policing.end()
    assert link.world.link().hello(2) is not None


async def test_a_session_that_comes_back_brings_its_streams(autojump_clock: MockClock) -> None:
    world = World()
    link = world.link()
    await link.begin()
    for stream in range(1, 13, 2):
        link.open(stream)
        await trio.sleep(1)
    link.policing.end()
    again = world.link()
    assert again.resume() is not None
    again.welcome()
    # What may have been lost is sent again; it is not counted again.
    for stream in range(1, 13, 2):
        assert refusal(again.open(stream)) is None
    assert world.told == []
    assert refusal(again.open(13)) is not None
    assert world.census.streams == 6


async def test_a_token_that_has_ceased_to_hold_opens_nothing(autojump_clock: MockClock) -> None:
    link = World().link()
    await link.begin()
    link.world.valid = False
    assert link.open(1) is None
    piece = Cutter(Request(id="r", target="nas:80", payload=b"")).next()
    assert link.say(FrameType.REQUEST, 1, piece) is None


async def test_a_session_that_the_agent_will_not_have_is_told_of(autojump_clock: MockClock) -> None:
    """So it is where somebody replays the words by which a session was resumed."""
    world = World()
    link, other = world.link(), world.link()
    link.hello()
    link.welcome()
    other.resume()
    other.hear(
        FrameType.GOAWAY, payload=write(GoAway(lost=True, detail="a later connection has the session"))
    )
    assert world.told == [
        SessionRefused(origin=ORIGIN, user="alice", detail="a later connection has the session")
    ]
    assert refusal(link.open(1)) is None


async def test_a_session_that_is_taken_over_is_nothing_to_tell_of(autojump_clock: MockClock) -> None:
    world = World()
    link, other = world.link(), world.link()
    link.hello()
    link.welcome()
    other.resume()
    link.hear(FrameType.GOAWAY, payload=write(GoAway(lost=True, detail="a later connection has the session")))
    assert world.told == []


async def test_a_window_that_is_overrun_is_told_of(autojump_clock: MockClock) -> None:
    link = World().link()
    link.hello()
    link.welcome()
    link.hear(FrameType.GOAWAY, payload=write(GoAway(lost=True, detail="more was sent than was granted")))
    [event] = link.world.told
    assert isinstance(event, SessionRefused)
    assert event.detail == "more was sent than was granted"
    assert link.world.census.access.held("alice", Held.SESSIONS) == 0


async def test_an_agent_that_is_away_is_nothing_to_tell_of(autojump_clock: MockClock) -> None:
    link = World().link()
    link.hello()
    link.hear(FrameType.GOAWAY, payload=write(GoAway(lost=False, detail="its connection is lost")))
    assert link.world.told == []


async def test_what_is_like_what_was_told_is_counted(autojump_clock: MockClock) -> None:
    link = World().link()
    link.hello(0, 1)
    for _ in range(5):
        link.hello(1, 2)
    await trio.sleep(QUIET)
    link.hello(1, 2)
    assert [event.times for event in link.world.told if isinstance(event, LimitReached)] == [1, 5]


async def test_requests_are_not_for_every_tier(autojump_clock: MockClock) -> None:
    link = World(Census(Access((attrs.evolve(TIER, features=frozenset()),)))).link()
    await link.begin()
    piece = Cutter(Request(id="r", target="nas:80", payload=b"")).next()
    assert link.say(FrameType.REQUEST, 1, piece) is None
    [frame] = link.sent
    assert (frame.type, frame.session) == (FrameType.GOAWAY, 1)
    assert read_go_away(frame.payload) == GoAway(lost=True, detail="the tier 'free' has no 'requests'")
    assert len(link.world.told) == 1
    assert link.world.census.access.held("alice", Held.SESSIONS) == 0


async def test_an_open_that_is_cut_off(autojump_clock: MockClock) -> None:
    link = World().link()
    await link.begin()
    with pytest.raises(RelayProtocolError):
        link.say(FrameType.OPEN, 1, b"\0")


@pytest.mark.parametrize("number", [1 << 63, 3, 1])
async def test_numbers_that_do_not_follow(autojump_clock: MockClock, number: int) -> None:
    """Otherwise, what comes after a high number would be taken for what was here before."""
    link = World().link()
    await link.begin()
    link.say(FrameType.WINDOW, 1, GRANT)
    with pytest.raises(RelayProtocolError, match="where 2 was due"):
        link.policing.coming(Frame(FrameType.WINDOW, 1, 1, number, GRANT))


async def test_nothing_is_said_to_who_has_not_welcomed_one(autojump_clock: MockClock) -> None:
    link = World().link()
    for greet in (link.hello, link.resume):
        greet()
        assert link.policing.coming(Frame(FrameType.WINDOW, 1, 1, (1 << 64) - 1, GRANT)) is None
        assert link.open(1) is None
        link.numbers = 0
        link.welcome()
        assert link.open(1) is not None
    assert link.world.census.streams == 1


@pytest.mark.parametrize("received", [0, 2, 1 << 62])
async def test_who_comes_back_goes_on_where_the_agent_is(autojump_clock: MockClock, received: int) -> None:
    """Whatever the agent says, what was not here before counts."""
    world = World()
    link = world.link()
    await link.begin()
    link.open(1)
    link.say(FrameType.RESET, 1)
    link.policing.end()
    again = world.link()
    again.resume()
    again.welcome(received)
    again.numbers = received
    for stream in range(3, 15, 2):
        await trio.sleep(1)
        assert refusal(again.open(stream)) is None
    assert world.census.streams == 6
    await trio.sleep(1)
    assert refusal(again.open(15)) is not None


async def test_what_was_refused_is_refused_again(autojump_clock: MockClock) -> None:
    world = World()
    link = world.link()
    await link.begin()
    for stream in range(1, 13, 2):
        link.open(stream)
        await trio.sleep(1)
    assert refusal(link.open(13)) is not None
    link.policing.end()
    again = world.link()
    again.resume()
    again.welcome(6)
    again.numbers = 6
    await trio.sleep(1)
    assert refusal(again.open(13)) is not None


async def test_what_belongs_to_no_session_goes_nowhere(autojump_clock: MockClock) -> None:
    link = World().link()
    for frame in (
        Frame(FrameType.OPEN, 1, 1, 1, GRANT),
        Frame(FrameType.ACK, 1),
        Frame(FrameType.WELCOME, 1),
    ):
        assert link.policing.coming(frame) is None
    assert (link.sent, link.world.census.streams) == ([], 0)


async def test_what_is_denied_leads_nowhere_any_more(autojump_clock: MockClock) -> None:
    link = World().link()
    await link.begin()
    other = link.world.link()
    assert other.hello(1) is None
    assert other.parted == [(1, False)]
    link.world.census.access.change((attrs.evolve(TIER, features=frozenset()),))
    assert (
        link.say(FrameType.REQUEST, 1, Cutter(Request(id="r", target="nas:80", payload=b"")).next()) is None
    )
    assert link.parted == [(1, True)]
    assert link.open(1) is None


async def test_a_session_has_one_label(autojump_clock: MockClock) -> None:
    link = World().link()
    await link.begin()
    link.open(1)
    assert link.resume(0, label=2) is not None
    assert link.parted == [(1, False)]
    assert link.farewells() == [(1, GoAway(lost=True, detail="a later connection has the session"))]
    assert link.open(3) is None
    link.policing.end()
    assert link.world.census.access.held("alice", Held.SESSIONS) == 0


async def test_a_link_carries_so_many_sessions(autojump_clock: MockClock) -> None:
    link = World(Census(Access((attrs.evolve(TIER, most={}),)))).link()
    for label in range(1, MOST_LABELS + 1):
        assert link.hello(label, label) is not None
        await trio.sleep(1)
    assert link.hello(0, MOST_LABELS + 1) is None
    detail = f"{MOST_LABELS} sessions are the most that one connection carries"
    assert link.farewells() == [(MOST_LABELS + 1, GoAway(lost=False, detail=detail))]
    # One that is over makes room.
    away = write(GoAway(lost=True, detail="enough"))
    assert link.policing.coming(Frame(FrameType.GOAWAY, 3, payload=away)) is not None
    assert link.world.census.access.held("alice", Held.SESSIONS) == MOST_LABELS - 1
    assert link.hello(0, MOST_LABELS + 1) is not None


async def test_who_begins_too_often_is_not_heard_and_then_refused(autojump_clock: MockClock) -> None:
    link = World().link()
    for _ in range(8):
        assert link.hello() is not None
    assert link.held == pytest.approx(1.0)
    assert link.resume() is None
    assert link.parted == [(1, False)]
    [(label, away)] = link.farewells()
    assert (label, away.lost) == (1, False)
    assert away.detail == "sessions were begun too often of late; try again in 0.2 s"
    await trio.sleep(1)
    assert link.resume() is not None
