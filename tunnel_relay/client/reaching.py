"""What a client does over a link: it keeps one session with an agent, opens streams to its services, and asks."""

from __future__ import annotations

import secrets

import attrs
import trio

from tunnel_relay.errors import RelayProtocolError, RequestLostError
from tunnel_relay.link import FrameCarrier
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import (
    TOKEN_LENGTH,
    GoAway,
    Hello,
    Mode,
    Resume,
    read_go_away,
    read_welcome,
    write,
)
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.requests import Request, Response
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import RelayStream
from tunnel_relay.sessions import LiveSession

# There is one session per link.
LABEL = 1

# Seconds between two requests for an agent that is not there: most of those that go come back at once.
FIRST_PAUSE = 0.1
PAUSE = 1.0


@attrs.define(eq=False)
class _Begun:
    live: LiveSession
    token: str = attrs.field(repr=False)
    instance: str = ""
    record: str = ""
    fence: int = 0


@attrs.frozen
class Reached:
    """A session that there is a way for; *record* is the id of its far end's record of requests."""

    record: str
    _live: LiveSession

    async def ask(self, request: Request) -> Response:
        """Return what has become of *request* at the far end; see `Asking.ask`.

        Raises:
          RequestLostError: the session ended first.

        """
        return await self._live.ask(request)


@attrs.define(eq=False)
class Reaching:
    """One client's session with the agent of that name, or with the relay, over one link after the other.

    A session that is lost for good is followed by a new one when the next stream is opened, or request made.

    Attributes:
      nursery: Runs sessions.
      agent: The agent's name.
      settings: The sessions' bounds.
      mode: Who speaks SSH with the agent's side. Where the relay does, what is asked for is not a service of the
        agent but a HOST:PORT behind it.

    """

    nursery: trio.Nursery
    agent: str
    settings: SessionSettings
    mode: Mode = Mode.END_TO_END
    _begun: _Begun | None = attrs.field(default=None, init=False)
    _link: FrameCarrier | None = attrs.field(default=None, init=False)
    why_not: str | None = attrs.field(default=None, init=False)
    """Why there is no way to the agent now, in the relay's or the agent's word."""
    denied: bool = attrs.field(default=False, init=False)
    """Whether that is because it is not allowed, which only a person can change."""
    _pause: float = attrs.field(default=FIRST_PAUSE, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def attached(self) -> bool:
        """Whether there is a way to the agent now."""
        return self._begun is not None and self._begun.live.session.attached

    @property
    def wanted(self) -> bool:
        """Whether there are streams that would go on."""
        return self._begun is not None and self._begun.live.streams > 0

    @property
    def stays(self) -> bool:
        """Whether there are streams that end with the relay, or what they have sent."""
        return self.mode is Mode.RELAY_SSH and self._begun is not None and self._begun.live.busy

    async def wait_free(self) -> None:
        """See `stays`."""
        await trio.lowlevel.checkpoint()
        while self.stays:
            assert self._begun is not None
            await self._begun.live.wait_room()

    def leave(self) -> None:
        """Leave a server that ends: nothing goes on there; see `End.leave`."""

    @property
    def changed(self) -> trio.Event:
        """What is set when `attached` or `why_not` may have changed; there is another one from then on."""
        return self._changed

    def begin(self) -> LiveSession:
        """Return the session; a new one where there is none (any more)."""
        if self._begun is None or self._begun.live.session.lost is not None:
            live = LiveSession.new(initiator=True, settings=self.settings, opened=_refuse)
            self._begun = _Begun(live, secrets.token_hex(TOKEN_LENGTH // 2))
            # That was said of the one before.
            self.why_not = None
            self.nursery.start_soon(self._run, live)
            self._greet()
        return self._begun.live

    def attach(self, link: FrameCarrier) -> None:
        """Use *link* from now on."""
        self.detach()
        self._link = link
        self._greet()

    def detach(self) -> None:
        """The link is lost."""
        self._link, self.why_not = None, None
        if self._begun is not None:
            self._begun.live.detach()
        self._change()

    def heed(self, frame: Frame) -> None:
        """Heed what came over the link.

        Raises:
          RelayProtocolError: it is nonsense.

        """
        if frame.session != LABEL:
            raise RelayProtocolError(f"{frame.type.name} for session {frame.session}, which there is none of")
        begun = self._begun
        if begun is None:
            return
        if frame.type is FrameType.WELCOME:
            self._welcome(begun, frame)
        elif frame.type is FrameType.GOAWAY:
            self._gone(begun, read_go_away(frame.payload))
        else:
            begun.live.receive(frame)

    def open_stream(self, service: str) -> RelayStream:
        """Open a stream to a service of the agent, or HOST:PORT; use it after `RelayStream.wait_accepted`."""
        return self.begin().open_stream(service.encode())

    async def wait_ready(self) -> Reached:
        """Return the session, once there is a way for it."""
        while True:
            live = self.begin()
            begun = self._begun
            assert begun is not None
            try:
                await live.wait_attached()
            except RequestLostError:
                await trio.sleep(PAUSE)
            else:
                return Reached(begun.record, live)

    def part(self, detail: str) -> None:
        """Give up the session and its streams, and say so: nobody keeps it then for whoever does not come back.

        What was sent and is not with the network yet is lost.
        """
        begun = self._begun
        if begun is None or begun.live.session.lost is not None:
            return
        if self._link is not None:
            # Whether there is an answer to our greeting yet or not.
            word = GoAway(lost=True, detail=detail)
            self._link.send(Frame(FrameType.GOAWAY, LABEL, payload=write(word)))
        begun.live.lose(detail)

    async def _run(self, live: LiveSession) -> None:
        await live.run()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _greet(self) -> None:
        begun, link = self._begun, self._link
        if begun is None or link is None or begun.live.session.lost is not None:
            return
        begun.fence += 1
        if begun.instance:
            resume = Resume(
                agent=self.agent,
                instance=begun.instance,
                token=begun.token,
                fence=begun.fence,
                received=begun.live.session.received,
                mode=self.mode,
            )
            link.send(Frame(FrameType.RESUME, LABEL, payload=write(resume)))
        else:
            hello = Hello(agent=self.agent, token=begun.token, fence=begun.fence, mode=self.mode)
            link.send(Frame(FrameType.HELLO, LABEL, payload=write(hello)))

    def _welcome(self, begun: _Begun, frame: Frame) -> None:
        welcome = read_welcome(frame.payload)
        if begun.live.session.lost is not None:
            # It has crossed our farewell.
            return
        assert self._link is not None
        begun.instance, begun.record = welcome.instance, welcome.record
        self.why_not = None
        self._pause = FIRST_PAUSE
        try:
            begun.live.attach(self._link, LABEL, welcome.received)
        except RelayProtocolError as exc:
            begun.live.lose(str(exc))
        self._change()

    def _gone(self, begun: _Begun, word: GoAway) -> None:
        self.why_not, self.denied = word.detail, word.denied
        begun.live.detach()
        if word.lost:
            begun.live.lose(word.detail)
        else:
            self.nursery.start_soon(self._greet_later, begun, begun.fence, self._pause)
            self._pause = min(2 * self._pause, PAUSE)
        self._change()

    async def _greet_later(self, begun: _Begun, fence: int, pause: float) -> None:
        await trio.sleep(pause)
        # What was greeted meanwhile, over this link or another one, has an answer, or will have.
        if begun is self._begun and begun.fence == fence and not self.attached:
            self._greet()


def _refuse(stream: RelayStream, request: bytes) -> None:
    del request
    stream.refuse(Reason.NOT_ALLOWED, "a client offers nothing")
