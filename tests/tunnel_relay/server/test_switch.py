"""Which agent is meant; that frames get there, test_joined shows."""

from __future__ import annotations

import pytest

from tests.support.relay_ports import Carrier
from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, Hello, read_go_away, write
from tunnel_relay.server.switch import NO_ROOM, Port, Switch
from tunnel_relay.server.waiting import MOST_WAITING, Room

LEAVING = Frame(FrameType.GOAWAY, payload=write(GoAway(lost=False, detail="that was it")))


def agent(switch: Switch, name: str, instance: str, user: str = "alice") -> Port:
    port = Port(switch, user, agent=name, instance=instance)
    switch.register(port)
    return port


def test_an_agent_is_found_by_its_name() -> None:
    switch = Switch()
    nas, other = agent(switch, "nas", "1"), agent(switch, "pi", "2")
    assert switch.find("alice", "nas", None) is nas
    assert switch.find("alice", "pi", "2") is other
    assert switch.find("alice", "pi", "1") is None
    assert switch.find("bob", "nas", None) is None
    assert switch.why_none("bob", "nas") == "no agent 'nas' is connected, nor any other of 'bob'"
    assert switch.why_none("alice", "x") == "no agent 'x' is connected; there is 'nas', 'pi'"
    switch.unregister(nas)
    assert switch.find("alice", "nas", None) is None


def test_the_only_one_needs_no_name() -> None:
    switch = Switch()
    assert switch.only_agent("alice") == ""
    assert switch.why_none("alice", "") == "no agent of 'alice' is connected"
    nas = agent(switch, "nas", "1")
    agent(switch, "nas", "2")
    agent(switch, "box", "3", user="bob")
    assert switch.only_agent("alice") == "nas"
    agent(switch, "pi", "4")
    assert switch.only_agent("alice") == ""
    assert switch.why_none("alice", "") == "say which agent: there is 'nas', 'pi'"
    # A session goes on with the one that it began with.
    assert switch.find("alice", "", "1") is nas
    assert switch.find("alice", "", "3") is None
    assert switch.find("alice", "", None) is None


@pytest.mark.parametrize("same", [True, False])
def test_who_was_replaced_does_not_unregister_the_other(same: bool) -> None:
    switch = Switch()
    old = agent(switch, "nas", "1")
    new = agent(switch, "nas", "1" if same else "2")
    switch.unregister(old)
    assert switch.find("alice", "nas", None) is new


def test_a_tier_without_pools_has_the_latest_agent() -> None:
    switch = Switch(pools=lambda tier: tier == "premium")
    first = agent(switch, "nas", "1")
    second = agent(switch, "nas", "2")
    assert switch.find("alice", "nas", None) is second
    assert switch.find("alice", "nas", "1") is first, "its sessions go on"
    again = agent(switch, "nas", "1")
    assert switch.find("alice", "nas", None) is again
    again.tier = second.tier = "premium"
    client = Port(switch, "alice")
    client.link, second.link, again.link = Carrier(), Carrier(), Carrier()
    for label in (1, 2):
        begin(client, label)
    assert (again.sessions, second.sessions) == (1, 1)


def test_an_agent_that_is_leaving_begins_nothing() -> None:
    switch = Switch()
    idle, busy = agent(switch, "nas", "1"), agent(switch, "nas", "2")
    client = Port(switch, "alice")
    client.link = near = Carrier()
    idle.link, busy.link = Carrier(), Carrier()
    begin(client, 1)
    begin(client, 2)
    begin(client, 3)
    if idle.sessions > busy.sessions:
        idle, busy = busy, idle
    idle.heed(LEAVING)
    assert switch.find("alice", "nas", None) is busy
    assert switch.find("alice", "nas", idle.instance) is idle, "its sessions go on"
    busy.heed(LEAVING)
    begin(client, 4)
    [frame] = near.own
    assert read_go_away(frame.payload) == GoAway(lost=False, detail="the agent 'nas' is being shut down")
    assert switch.why_none("alice", "pi") == "no agent 'pi' is connected; there is 'nas'"
    again = agent(switch, "nas", "3")
    assert switch.find("alice", "nas", None) is again


def test_an_agent_that_retires_keeps_the_relay_s_own_sessions() -> None:
    switch = Switch()
    client, nas, near, far = joined(switch)
    begin(client, 1)
    relay = Port(switch, "alice", own=True)
    relay.link = inner = Carrier()
    begin(relay, 1)
    nas.retire("the relay is being shut down")
    assert (client.sessions, relay.sessions, nas.sessions) == (0, 1, 1)
    for carrier in (near, far):
        [frame] = carrier.own
        assert (frame.type, frame.session) == (FrameType.GOAWAY, 1)
        assert read_go_away(frame.payload) == GoAway(lost=False, detail="the relay is being shut down")
    assert inner.own == []


@pytest.mark.parametrize("name", [None, ""])
def test_nobody_but_an_agent_is_leaving(name: str | None) -> None:
    with pytest.raises(RelayProtocolError, match="GOAWAY does not concern a link"):
        Port(Switch(), "alice", agent=name).heed(LEAVING)


def data(label: int, size: int) -> Frame:
    return Frame(FrameType.DATA, label, 1, 1, bytes(size))


def begin(client: Port, label: int) -> None:
    hello = Hello(agent="nas", token=f"{label:032}", fence=1)
    client.heed(Frame(FrameType.HELLO, label, payload=write(hello)))


def joined(switch: Switch) -> tuple[Port, Port, Carrier, Carrier]:
    """Return a client and an agent, and what is sent to them."""
    nas, client = agent(switch, "nas", "1"), Port(switch, "alice")
    near, far = Carrier(), Carrier()
    client.link, nas.link = near, far
    return client, nas, near, far


def test_what_waits_is_counted() -> None:
    switch = Switch()
    client, nas, _, far = joined(switch)
    begin(client, 1)
    far.take()
    assert client.waiting() == (0, 0)
    client.heed(data(1, 1000))
    nas.heed(data(1, 500))
    assert client.waiting() == nas.waiting() == (2, 1544)
    assert switch.room.waiting == 1544
    [frame] = far.take()
    assert (frame.type, len(frame.payload)) == (FrameType.DATA, 1000)
    assert client.waiting() == (1, 522)
    client.lose("it is cut")
    assert (switch.room.waiting, switch.room.ways) == (0, 0)


def test_who_takes_too_little_is_parted_from() -> None:
    switch = Switch()
    client, nas, near, far = joined(switch)
    begin(client, 1)
    for _ in range(MOST_WAITING // (60_000 + 22) + 1):
        client.heed(data(1, 60_000))
    for wire in (near, far):
        [frame] = wire.own
        assert read_go_away(frame.payload).detail == "the other end takes too little of what is sent"
    assert (client.sessions, nas.sessions, switch.room.waiting) == (0, 0, 0)


def test_where_memory_is_short_those_who_have_most_of_it_are_to_blame() -> None:
    switch = Switch(room=Room(400_000))
    client, _, near, _ = joined(switch)
    for label in (1, 2):
        begin(client, label)
    for _ in range(6):
        client.heed(data(1, 60_000))
    for _ in range(2):
        client.heed(data(2, 10_000))
    assert near.own == []
    client.heed(data(2, 10_000))
    assert near.own == [], "it has less than its share"
    client.heed(data(1, 60_000))
    assert [frame.session for frame in near.own] == [1]
    assert client.sessions == 1


class Watching:
    """Lets no ACK pass, and writes down what goes to the client."""

    def __init__(self) -> None:
        self.gone: list[tuple[int, FrameType]] = []

    def coming(self, frame: Frame) -> Frame | None:
        return None if frame.type is FrameType.ACK else frame

    def going(self, label: int, frame: Frame) -> None:
        self.gone.append((label, frame.type))


def test_what_passes_is_seen() -> None:
    switch = Switch()
    client, nas, _, far = joined(switch)
    client.watch = watching = Watching()
    begin(client, 5)
    far.take()
    client.heed(Frame(FrameType.ACK, 5))
    client.heed(data(5, 10))
    assert [frame.type for frame in far.take()] == [FrameType.DATA]
    nas.heed(Frame(FrameType.ACK, 1))
    assert watching.gone == [(5, FrameType.ACK)]


def test_an_agent_that_comes_again_has_left_its_old_link() -> None:
    """Its network took the old one away without a word: the clients need not wait until that is noticed."""
    switch = Switch()
    client, old, near, _ = joined(switch)
    begin(client, 1)
    assert old.sessions == 1
    new = Port(switch, "alice", agent="nas", instance="1")
    new.link = Carrier()
    switch.register(new)
    [frame] = near.own
    away = read_go_away(frame.payload)
    assert (frame.session, away.lost, away.detail) == (1, False, "the agent has another link")
    begin(client, 1)
    assert (old.sessions, new.sessions) == (0, 1)
    # What ends the old link at last is no news.
    switch.unregister(old)
    old.lose("it is lost")
    assert (new.sessions, len(near.own)) == (1, 1)


@pytest.mark.parametrize("kind", [FrameType.GOAWAY, FrameType.WELCOME])
def test_nonsense_ends_the_link_that_it_comes_from(kind: FrameType) -> None:
    client, nas, near, far = joined(Switch())
    begin(client, 1)
    for port in (client, nas):
        with pytest.raises(RelayProtocolError):
            port.heed(Frame(kind, 1, payload=b"nonsense"))
    assert (client.sessions, near.own, far.own) == (1, [], [])


@pytest.mark.parametrize("lost", [True, False])
def test_a_word_of_farewell_is_passed_on_and_nothing_is_left(lost: bool) -> None:
    switch = Switch()
    client, nas, near, far = joined(switch)
    client.watch = watching = Watching()
    away = GoAway(lost=lost, detail="enough")
    for port, label, wire in ((client, 5, far), (nas, 2, near)):
        begin(client, 5)
        port.heed(Frame(FrameType.GOAWAY, label, payload=write(away)))
        frame = wire.own.pop()
        assert (frame.type, frame.session) == (FrameType.GOAWAY, 5 if wire is near else 1)
        assert read_go_away(frame.payload) == away
        assert (client.sessions, nas.sessions, switch.room.ways) == (0, 0, 0)
    assert watching.gone == [(5, FrameType.GOAWAY)]


def test_who_begins_anew_leaves_nothing_behind() -> None:
    """The agent hears that nobody comes back that way for now, and keeps the old session no longer than it must."""
    client, nas, _, far = joined(Switch())
    begin(client, 1)
    far.take()
    hello = Hello(agent="nas", token="f" * 32, fence=1)
    client.heed(Frame(FrameType.HELLO, 1, payload=write(hello)))
    [frame] = far.own
    assert (frame.session, read_go_away(frame.payload).lost) == (1, False)
    assert [(frame.type, frame.session) for frame in far.take()] == [(FrameType.HELLO, 2)]
    assert nas.sessions == 1


def test_a_session_that_there_is_no_room_for_is_not_begun() -> None:
    switch = Switch(room=Room(0))
    client, nas, near, _ = joined(switch)
    begin(client, 1)
    [frame] = near.own
    away = read_go_away(frame.payload)
    assert (frame.session, away.lost, away.detail) == (1, False, NO_ROOM)
    assert (client.sessions, nas.sessions, switch.room.ways) == (0, 0, 0)
