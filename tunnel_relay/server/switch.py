"""Joins the sessions of clients to agents of the same user, and passes their frames on without reading them.

A session has a label on the client's link and another one on the agent's; the switch knows which belong together, and
nothing else of it. So it may end, and another may take its place, without a stream being lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

import attrs
import trio

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.link import FrameCarrier
from tunnel_relay.policy.access import Denial
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.greetings import (
    GoAway,
    Mode,
    read_go_away,
    read_hello,
    read_resume,
    read_welcome,
    write,
)
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.server.absence import why_leaving, why_none
from tunnel_relay.server.waiting import Room, Waiting

NO_ROOM = "the relay has no memory left for what waits"


class Watch(Protocol):
    """Who sees what passes over the link of a client."""

    def coming(self, frame: Frame) -> Frame | None:
        """Return what to pass on in the place of *frame*, which the client has sent; None for nothing."""
        ...

    def going(self, label: int, frame: Frame) -> None:
        """Take note of what goes to the client, in its session *label*."""
        ...


class Elsewhere(Protocol):
    """Who knows the agents that other servers have."""

    def look_up(self, wanted: Wanted) -> None:
        """Find out where the agent is that is *wanted*, and say so to `Wanted.client`, by `Port.settle`."""
        ...

    def names_of(self, user: str) -> Collection[str]:
        """Return the names of the agents of *user* that were there when somebody looked last."""
        ...


@attrs.frozen(eq=False)
class Wanted:
    """A client that begins, or goes on with, a session; its link is not held up meanwhile.

    Attributes:
      client: Whose link it is.
      label: The session's label on it.
      frame: What the client has said.
      name: The agent's name; "" for the only one.
      instance: Which of the agents of that name; None for any.
      mode: Who speaks SSH.

    """

    client: Port
    label: int
    frame: Frame
    name: str
    instance: str | None
    mode: Mode


@attrs.define(eq=False)
class _Way(Waiting):
    """One direction of a session: what goes out at *port*, under its *label* there."""

    port: Port
    label: int
    other: _Way | None = None

    def put(self, frame: Frame) -> bool:
        """Pass *frame* on; return whether there was room."""
        if not self.room.has_for(frame, self.bytes):
            return False
        if self.port.watch is not None:
            self.port.watch.going(self.label, frame)
        # The message that the payload is a view of need not be kept for it.
        payload = bytes(frame.payload)
        self.add(Frame(frame.type, self.label, frame.stream, frame.number, payload))
        self.port.link.poke()
        return True


@attrs.define(eq=False)
class Port:
    """One link of the switch, of a client or an agent of *user*; give what it says to `heed`.

    Attributes:
      switch: What it belongs to.
      user: Whose it is.
      agent: The agent's name, or None for a client.
      instance: Which of the agents of that name.
      tier: What the user's token says of it at the moment.
      leaving: Set when the agent is about to end: it goes on with what it has, and begins nothing.
      link: What carries its frames.
      watch: Sees them, if anybody does.
      own: Whether it is the relay that is the client.
      agent_leaves: Called, of a client, when the agent of one of its sessions is about to end.

    """

    switch: Switch
    user: str
    agent: str | None = None
    instance: str = ""
    tier: str = ""
    own: bool = False
    leaving: trio.Event = attrs.field(factory=trio.Event, init=False)
    agent_leaves: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    link: FrameCarrier = attrs.field(init=False)
    watch: Watch | None = attrs.field(default=None, init=False)
    # Where what comes with a label goes.
    _ways: dict[int, _Way] = attrs.field(factory=dict[int, _Way], init=False)
    _labels: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    # What is being looked up, by label.
    _wanted: dict[int, Wanted] = attrs.field(factory=dict[int, Wanted], init=False)

    @property
    def sessions(self) -> int:
        """How many sessions it carries."""
        return len(self._ways)

    def waiting(self) -> tuple[int, int]:
        """Return how many frames of its sessions wait here or at their other ends, and their bytes."""
        ways = [each for way in self._ways.values() for each in (way, way.other) if each is not None]
        return sum(len(way) for way in ways), sum(way.bytes for way in ways)

    def heed(self, frame: Frame) -> None:
        """Pass *frame* on.

        Raises:
          RelayProtocolError: it is none that such a link carries.

        """
        # What would be nonsense to others further on ends the link that it comes from.
        away = read_go_away(frame.payload) if frame.type is FrameType.GOAWAY else None
        if frame.session == LINK:
            if away is None or not self.agent:
                raise RelayProtocolError(f"{frame.type.name} does not concern a link")
            self.leaving.set()
            for way in list(self._ways.values()):
                way.port.agent_leaves()
            return
        if frame.type is FrameType.WELCOME:
            read_welcome(frame.payload)
        if self.watch is not None:
            passed = self.watch.coming(frame)
            if passed is None:
                return
            frame = passed
        if frame.type in (FrameType.HELLO, FrameType.RESUME):
            if self.agent is not None:
                raise RelayProtocolError("an agent begins no session")
            self._begin(frame)
            return
        way = self._ways.get(frame.session)
        if away is not None:
            self._end(frame, away)
        elif way is None:
            # It crossed the news that its session leads nowhere.
            return
        elif not way.put(frame):
            detail = "the other end takes too little of what is sent"
            self.part(frame.session, detail)
            self.go_away(frame.session, detail)

    def part(self, label: int, detail: str, *, lost: bool = False) -> None:
        """Tell the other end of the session *label*, if there is one, that it leads nowhere (see `go_away`)."""
        self._wanted.pop(label, None)
        if label in self._ways:
            way = self._part(label)
            way.port.go_away(way.label, detail, lost=lost)

    def go_away(self, label: int, detail: str, *, lost: bool = False, denied: bool = False) -> None:
        """Tell the end of this link that its session leads nowhere: for now, or for good where it is *lost*."""
        word = GoAway(lost=lost, detail=detail, denied=denied)
        self.link.send(Frame(FrameType.GOAWAY, label, payload=write(word)))

    def lose(self, detail: str) -> None:
        """The link is lost: tell the other ends."""
        for label in [*self._wanted, *self._ways]:
            self.part(label, detail)

    def retire(self, detail: str) -> None:
        """Carry nothing on but sessions of the relay's own: tell both ends of the others to come another way."""
        for label in [label for label, way in self._ways.items() if not way.port.own]:
            self.part(label, detail)
            self.go_away(label, detail)

    def link_up(self, way: _Way) -> int:
        """Give a session that comes from another port a label here, and send what is said of it that *way*."""
        label = next(self._labels)
        self._ways[label] = way
        return label

    def unlink(self, label: int) -> None:
        """What comes with *label* goes nowhere any more."""
        del self._ways[label]

    def settle(self, wanted: Wanted, far: Port | None, why_none: str = "", route: bytes = b"") -> None:
        """Join the session that was *wanted* to *far*, unless that is out of date; or say why there is none.

        *route* goes before what the client has said: for another server, which passes on what follows it.
        """
        if self._wanted.pop(wanted.label, None) is not wanted:
            return
        if far is None:
            self.go_away(wanted.label, why_none)
            return
        frame = wanted.frame
        self._lead(attrs.evolve(frame, payload=route + bytes(frame.payload)) if route else frame, far)

    def _begin(self, frame: Frame) -> None:
        label = frame.session
        # Where the client begins anew, the agent need not wait for who does not come back that way.
        self.part(label, "the client comes another way")
        if frame.type is FrameType.HELLO:
            hello = read_hello(frame.payload)
            wanted = Wanted(self, label, frame, hello.agent, None, hello.mode)
        else:
            resume = read_resume(frame.payload)
            wanted = Wanted(self, label, frame, resume.agent, resume.instance, resume.mode)
        self._wanted[label] = wanted
        if self.switch.elsewhere is None:
            self.find_here(wanted, wanted.name or self.switch.only_agent(self.user))
        else:
            # The message that the payload is a view of is gone by then.
            kept = attrs.evolve(wanted, frame=attrs.evolve(frame, payload=bytes(frame.payload)))
            self._wanted[label] = kept
            self.switch.elsewhere.look_up(kept)

    def find_here(self, wanted: Wanted, name: str, without: Collection[str] = ()) -> None:
        """Settle what is *wanted*, for the agent called *name*, with what this server has.

        What it has *without* those instances, that is: links that it has of agents that are elsewhere by now.
        """
        if wanted.mode is Mode.RELAY_SSH and name:
            far = self.switch.keep(self, name, wanted.instance)
            if isinstance(far, Denial):
                if self._wanted.pop(wanted.label, None) is wanted:
                    denied = far.reason is Reason.NOT_ALLOWED
                    self.go_away(wanted.label, far.detail, lost=True, denied=denied)
                return
        else:
            far = self.switch.find(self.user, name, wanted.instance, without)
        self.settle(wanted, far, self.switch.why_none(self.user, name))

    def _lead(self, greeting: Frame, far: Port) -> None:
        """Join the session that begins with *greeting* to *far*, if there is room."""
        self._join(greeting.session, far)
        if not self._ways[greeting.session].put(greeting):
            self._part(greeting.session)
            self.go_away(greeting.session, NO_ROOM)

    def _join(self, label: int, agent: Port) -> None:
        room = self.switch.room
        down = _Way(room, self, label)
        up = _Way(room, agent, agent.link_up(down))
        up.other, down.other = down, up
        self._ways[label] = up
        room.ways += 2
        for way in (up, down):
            way.port.link.add(way)

    def _end(self, frame: Frame, away: GoAway) -> None:
        """Take the word of this end that a session leads nowhere."""
        way = self._ways.get(frame.session)
        if way is not None and way.port.watch is not None:
            way.port.watch.going(way.label, frame)
        self.part(frame.session, away.detail, lost=away.lost)

    def _part(self, label: int) -> _Way:
        way = self._ways.pop(label)
        assert way.other is not None
        way.port.unlink(way.label)
        for each in (way, way.other):
            each.port.link.remove(each)
            each.drop()
        self.switch.room.ways -= 2
        return way


@attrs.define(eq=False)
class Switch:
    """The links that there are, by user.

    Attributes:
      keeper: Gives the far end of a client's sessions that the relay keeps itself (`Mode.RELAY_SSH`): for the agent
        of that name, and where a session is resumed, for what was this relay's instance when it began. Or it says
        why there is none; nothing, where there is no such agent.
      elsewhere: Knows the agents that other servers have, where there are such servers.
      room: What may wait to be passed on.
      pools: Returns whether the users of a tier have several agents of one name.

    """

    keeper: Callable[[Port, str, str | None], Port | Denial | None] | None = None
    elsewhere: Elsewhere | None = None
    room: Room = attrs.field(factory=Room)
    pools: Callable[[str], bool] = lambda _tier: True
    # By user, name and instance.
    _agents: dict[str, dict[str, dict[str, Port]]] = attrs.field(
        factory=dict[str, dict[str, dict[str, Port]]]
    )

    def register(self, agent: Port) -> None:
        """Let the clients of an agent's user reach it.

        One that was there under its name and instance is replaced: it has left that link, be it lost or not, and its
        clients come to the new one as soon as they know.
        """
        assert agent.agent is not None
        instances = self._agents.setdefault(agent.user, {}).setdefault(agent.agent, {})
        # The latest comes last.
        old = instances.pop(agent.instance, None)
        instances[agent.instance] = agent
        if old is not None and old is not agent:
            old.lose("the agent has another link")

    def unregister(self, agent: Port) -> None:
        """It cannot be reached any more."""
        assert agent.agent is not None
        names = self._agents.get(agent.user, {})
        instances = names.get(agent.agent, {})
        if instances.get(agent.instance) is not agent:
            return
        del instances[agent.instance]
        if not instances:
            del names[agent.agent]
        if not names:
            del self._agents[agent.user]

    def find(self, user: str, name: str, instance: str | None, without: Collection[str] = ()) -> Port | None:
        """Return an agent of *user*, that *instance* of it or the one that has least to do; None without one.

        Where the tier has no pools, new sessions are the latest one's; those that are leaving begin none. Without a
        *name* only the *instance* tells which. Instances that are to do *without* are not looked at.
        """
        names = self._agents.get(user, {})
        wanted = [names.get(name, {})] if name else names.values()
        found = [port for instances in wanted for port in instances.values() if port.instance not in without]
        if instance is not None:
            return next((port for port in found if port.instance == instance), None)
        found = [port for port in found if not port.leaving.is_set()]
        if not (name and found):
            return None
        return min(found, key=lambda agent: agent.sessions) if self.pools(found[-1].tier) else found[-1]

    def agents_of(self, user: str) -> list[str]:
        """Return the names of the agents of *user* that are connected, here or elsewhere."""
        here = self._agents.get(user, {})
        if self.elsewhere is None:
            return list(here)
        return list(dict.fromkeys((*here, *self.elsewhere.names_of(user))))

    def only_agent(self, user: str) -> str:
        """Return the name that all agents of *user* have; "" where there is no such name."""
        names = self.agents_of(user)
        return names[0] if len(names) == 1 else ""

    def why_none(self, user: str, name: str) -> str:
        """Return why there is no agent of that name for *user*, or none that is meant without one."""
        if name and self._agents.get(user, {}).get(name):
            return why_leaving(name)
        return why_none(user, name, [each for each in self.agents_of(user) if each != name])

    def keep(self, client: Port, name: str, instance: str | None) -> Port | Denial | None:
        """Return the relay's own far end for *client*'s sessions behind the agent of that name (see `keeper`)."""
        if self.keeper is None:
            detail = f"this relay has no mode {Mode.RELAY_SSH.value!r}; it needs [users.{client.user}.ssh] in its file"
            return Denial(Reason.NOT_ALLOWED, detail)
        return self.keeper(client, name, instance)
