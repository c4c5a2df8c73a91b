"""What an agent does over a link: it keeps its clients' sessions, joins their streams to its services, and is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import trio

from tunnel_relay.asking import AskedRequest
from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.link import Link
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, Resume, Welcome, read_hello, read_resume, write
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.sessions import LiveSession, RelayStream, StreamResetError

# Seconds that a service may take to be connected to. It runs beside us.
CONNECT_LIMIT = 10.0

READ = 64 * 1024


@attrs.define(eq=False)
class _Kept:
    live: LiveSession
    fence: int = 0
    label: int = LINK


@attrs.define(eq=False)
class Offering:
    """The sessions of an agent's clients, over one link after the other.

    Attributes:
      nursery: Runs sessions and streams.
      services: Host and port by name; nothing else can be reached.
      instance: What tells this agent from others of its name.
      settings: The sessions' bounds.
      asked: Called with each request (see `Answering.asked`). Without it, none is done.

    """

    nursery: trio.Nursery
    services: Mapping[str, tuple[str, int]]
    instance: str
    settings: SessionSettings
    asked: Callable[[AskedRequest], None] | None = None
    _sessions: dict[str, _Kept] = attrs.field(factory=dict[str, _Kept], init=False)
    _labels: dict[int, _Kept] = attrs.field(factory=dict[int, _Kept], init=False)
    _link: Link | None = attrs.field(default=None, init=False)

    def attach(self, link: Link) -> None:
        """Use *link* from now on."""
        self.detach()
        self._link = link

    def detach(self) -> None:
        """The link is lost; clients come back over another one."""
        for kept in self._labels.values():
            kept.live.detach()
        self._labels.clear()
        self._link = None

    def heed(self, frame: Frame) -> None:
        """Heed what came over the link.

        Raises:
          RelayProtocolError: it is nonsense.

        """
        if frame.session == LINK:
            raise RelayProtocolError(f"{frame.type.name} does not concern a link")
        if frame.type is FrameType.HELLO:
            self._begin(frame)
        elif frame.type is FrameType.RESUME:
            self._resume(frame.session, read_resume(frame.payload))
        else:
            kept = self._labels.get(frame.session)
            if kept is None:
                return
            if frame.type is FrameType.GOAWAY:
                del self._labels[frame.session]
                kept.live.detach()
            else:
                kept.live.receive(frame)

    def _begin(self, frame: Frame) -> None:
        hello = read_hello(frame.payload)
        kept = self._sessions.get(hello.token)
        if kept is None:
            live = LiveSession.new(
                initiator=False, settings=self.settings, opened=self._opened, asked=self.asked
            )
            kept = self._sessions[hello.token] = _Kept(live)
            self.nursery.start_soon(self._keep, hello.token, live)
        self._attach(kept, frame.session, 0, hello.fence)

    def _resume(self, label: int, resume: Resume) -> None:
        kept = self._sessions.get(resume.token)
        if kept is None:
            self._go_away(label, "the session is not known here (any more)")
        else:
            self._attach(kept, label, resume.received, resume.fence)

    def _attach(self, kept: _Kept, label: int, received: int, fence: int) -> None:
        assert self._link is not None
        if fence <= kept.fence:
            self._go_away(label, "a later connection has the session")
            return
        if self._labels.get(kept.label) is kept:
            del self._labels[kept.label]
            self._go_away(kept.label, "a later connection has the session")
        kept.fence, kept.label = fence, label
        self._labels[label] = kept
        welcome = Welcome(instance=self.instance, received=kept.live.session.received)
        self._link.send(Frame(FrameType.WELCOME, label, payload=write(welcome)))
        try:
            kept.live.attach(self._link, label, received)
        except RelayProtocolError as exc:
            kept.live.lose(str(exc))
            self._go_away(label, str(exc))

    def _go_away(self, label: int, detail: str) -> None:
        assert self._link is not None
        self._link.send(Frame(FrameType.GOAWAY, label, payload=write(GoAway(lost=True, detail=detail))))

    async def _keep(self, token: str, live: LiveSession) -> None:
        await live.run()
        del self._sessions[token]

    def _opened(self, stream: RelayStream, request: bytes) -> None:
        name = request.decode("utf8", "replace")
        service = self.services.get(name)
        if service is None:
            stream.refuse(Reason.NO_SUCH_SERVICE, f"no service {name!r} is offered")
        else:
            self.nursery.start_soon(self._serve, stream, service)

    async def _serve(self, stream: RelayStream, service: tuple[str, int]) -> None:
        try:
            with trio.fail_after(CONNECT_LIMIT):
                socket = await trio.open_tcp_stream(*service)
        except trio.TooSlowError:
            stream.refuse(Reason.TIMED_OUT)
            return
        except OSError as exc:
            stream.refuse(Reason.REFUSED, str(exc))
            return
        stream.accept()
        async with socket, trio.open_nursery() as nursery:
            nursery.start_soon(_carry, stream, socket)
            nursery.start_soon(_carry, socket, stream)


async def _carry(source: trio.abc.HalfCloseableStream, sink: trio.abc.HalfCloseableStream) -> None:
    try:
        while data := await source.receive_some(READ):
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError, StreamResetError):
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(sink)
