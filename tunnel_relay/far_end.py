"""The far end of sessions: it keeps them over one link after the other, and connects what their streams ask for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from tunnel_relay.asking import AskedRequest
from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.link import FrameCarrier
from tunnel_relay.protocol.frames import LINK, Frame, FrameType
from tunnel_relay.protocol.greetings import (
    GoAway,
    Resume,
    Welcome,
    read_go_away,
    read_hello,
    read_resume,
    write,
)
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.refusal import read_refusal
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import RelayStream, StreamRefusedError
from tunnel_relay.sessions import LiveSession

# Seconds that connecting may take.
CONNECT_LIMIT = 10.0

READ = 256 * 1024

Connect = Callable[[str], Awaitable[trio.abc.HalfCloseableStream]]
"""Connects to what a stream asks for, or raises `StreamRefusedError`."""


@attrs.define(eq=False)
class _Kept:
    live: LiveSession
    fence: int = 0
    label: int = LINK
    at: _Attached | None = None


@attrs.define(eq=False)
class _Attached:
    """A link that is used, and the sessions that it carries, by label; it is a `tunnel_relay.dialing_end.Remains`."""

    far_end: FarEnd
    link: FrameCarrier
    labels: dict[int, _Kept] = attrs.field(factory=dict[int, _Kept])

    def heed(self, frame: Frame) -> None:
        """See `FarEnd.heed`."""
        self.far_end.heed_at(self, frame)

    def detach(self) -> None:
        """The link is lost, or left."""
        for kept in self.labels.values():
            kept.live.detach()
        self.labels.clear()

    def busy(self) -> LiveSession | None:
        """Return a session that has streams, or what they have sent; None where none has."""
        return next((kept.live for kept in self.labels.values() if kept.live.busy), None)

    async def wait_over(self) -> None:
        """Wait until no stream goes over it, and all that was sent has arrived."""
        while (live := self.busy()) is not None:
            await live.wait_room()

    def go_away(self, label: int, detail: str, *, lost: bool = True) -> None:
        """Tell the other end that a session leads nowhere."""
        self.link.send(Frame(FrameType.GOAWAY, label, payload=write(GoAway(lost=lost, detail=detail))))


@attrs.define(eq=False)
class FarEnd:
    """The sessions of clients, over one link after the other.

    Attributes:
      nursery: Runs sessions and streams.
      connect: Connects what streams ask for.
      instance: What tells this far end from others that the clients may find in its place.
      settings: The sessions' bounds.
      asked: Called with each request (see `Answering.asked`). Without it, none is done.
      limit: Seconds that connecting may take.
      record: The id of the record of what is asked; "" where none is done.
      draining: Why there are to be no more sessions and streams; "" while there may be.

    """

    nursery: trio.Nursery
    connect: Connect
    instance: str
    settings: SessionSettings
    asked: Callable[[AskedRequest], None] | None = None
    limit: float = CONNECT_LIMIT
    record: str = ""
    draining: str = attrs.field(default="", init=False)
    _sessions: dict[str, _Kept] = attrs.field(factory=dict[str, _Kept], init=False)
    _attached: _Attached | None = attrs.field(default=None, init=False)
    _served: int = attrs.field(default=0, init=False)
    """Streams that lead somewhere, or will."""
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def sessions(self) -> int:
        """How many sessions are kept."""
        return len(self._sessions)

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return self._served

    @property
    def wanted(self) -> bool:
        """Whether there are streams that would go on."""
        return bool(self._served)

    @property
    def stays(self) -> bool:
        """What ends with the server that leads here is its own; see `leave`."""
        return False

    async def wait_free(self) -> None:
        """See `stays`."""
        await trio.lowlevel.checkpoint()

    async def wait_streams_over(self) -> None:
        """Wait until there is no stream."""
        while self._served:
            self._over = trio.Event()
            await self._over.wait()

    def close(self, detail: str) -> None:
        """Give up all sessions; what becomes of the nursery's tasks is the caller's matter."""
        for kept in list(self._sessions.values()):
            kept.live.lose(detail)

    def attach(self, link: FrameCarrier) -> None:
        """Use *link* from now on."""
        self.detach()
        self._attached = _Attached(self, link)

    def detach(self) -> None:
        """The link is lost; clients come back over another one."""
        if self._attached is not None:
            self._attached.detach()
            self._attached = None

    def leave(self) -> _Attached | None:
        """Leave a server that ends; return what goes on over its link until it ends, or None where nothing does.

        That is what the server itself has here: clients have been told to come another way.
        """
        attached = self._attached
        if attached is None or attached.busy() is None:
            return None
        self._attached = None
        return attached

    def heed(self, frame: Frame) -> None:
        """Heed what came over the link.

        Raises:
          RelayProtocolError: it is nonsense.

        """
        if self._attached is not None:
            self.heed_at(self._attached, frame)

    def heed_at(self, at: _Attached, frame: Frame) -> None:
        """Heed what came over one of the links; see `heed`."""
        if frame.session == LINK:
            raise RelayProtocolError(f"{frame.type.name} does not concern a link")
        if frame.type is FrameType.HELLO:
            self._begin(at, frame)
        elif frame.type is FrameType.RESUME:
            self._resume(at, frame.session, read_resume(frame.payload))
        else:
            kept = at.labels.get(frame.session)
            if kept is None:
                return
            if frame.type is FrameType.GOAWAY:
                del at.labels[frame.session]
                word = read_go_away(frame.payload)
                if word.lost:
                    # The client will not come back.
                    kept.live.lose(word.detail)
                else:
                    kept.live.detach()
            else:
                kept.live.receive(frame)

    def _begin(self, at: _Attached, frame: Frame) -> None:
        hello = read_hello(frame.payload)
        kept = self._sessions.get(hello.token)
        if kept is None and self.draining:
            # There may be another one to go to, or there will be.
            at.go_away(frame.session, self.draining, lost=False)
            return
        if kept is None and len(self._sessions) >= self.settings.sessions:
            at.go_away(frame.session, f"{len(self._sessions)} sessions are kept already", lost=False)
            return
        if kept is None:
            live = LiveSession.new(
                initiator=False, settings=self.settings, opened=self._opened, asked=self.asked
            )
            kept = self._sessions[hello.token] = _Kept(live)
            self.nursery.start_soon(self._keep, hello.token, kept)
        self._attach(at, kept, frame.session, 0, hello.fence)

    def _resume(self, at: _Attached, label: int, resume: Resume) -> None:
        kept = self._sessions.get(resume.token)
        if kept is None:
            at.go_away(label, "the session is not known here (any more)")
        else:
            self._attach(at, kept, label, resume.received, resume.fence)

    def _attach(self, at: _Attached, kept: _Kept, label: int, received: int, fence: int) -> None:
        if fence <= kept.fence:
            at.go_away(label, "a later connection has the session")
            return
        self._part(kept, "a later connection has the session")
        kept.fence, kept.label, kept.at = fence, label, at
        at.labels[label] = kept
        arrived = kept.live.session.received
        welcome = Welcome(instance=self.instance, received=arrived, record=self.record)
        at.link.send(Frame(FrameType.WELCOME, label, payload=write(welcome)))
        try:
            kept.live.attach(at.link, label, received)
        except RelayProtocolError as exc:
            kept.live.lose(str(exc))

    @staticmethod
    def _part(kept: _Kept, detail: str) -> None:
        """Tell whoever leads a session here that it is over there."""
        at = kept.at
        if at is not None and at.labels.get(kept.label) is kept:
            del at.labels[kept.label]
            at.go_away(kept.label, detail)

    async def _keep(self, token: str, kept: _Kept) -> None:
        await kept.live.run()
        del self._sessions[token]
        # Where the client has broken the rules, or it was given up here, there is nothing to come back to.
        self._part(kept, kept.live.session.lost or "")

    def _opened(self, stream: RelayStream, request: bytes) -> None:
        refusal = read_refusal(request)
        if refusal is not None:
            stream.refuse(*refusal)
            return
        if self.draining:
            stream.refuse(Reason.LIMIT, self.draining)
            return
        self.nursery.start_soon(self._serve, stream, request.decode("utf8", "replace"))

    async def _serve(self, stream: RelayStream, asked: str) -> None:
        self._served += 1
        try:
            await self._join(stream, asked)
        finally:
            self._served -= 1
            if not self._served:
                self._over.set()

    async def _join(self, stream: RelayStream, asked: str) -> None:
        try:
            with trio.fail_after(self.limit):
                far = await self.connect(asked)
        except trio.TooSlowError:
            stream.refuse(Reason.TIMED_OUT, f"nothing came of it in {self.limit:g} s")
            return
        except StreamRefusedError as exc:
            stream.refuse(exc.reason, exc.detail)
            return
        stream.accept()
        async with stream, far, trio.open_nursery() as nursery:
            nursery.start_soon(_carry, stream, far, stream, far)
            nursery.start_soon(_carry, far, stream, stream, far)


async def _carry(
    source: trio.abc.HalfCloseableStream,
    sink: trio.abc.HalfCloseableStream,
    stream: RelayStream,
    far: trio.abc.HalfCloseableStream,
) -> None:
    """Carry one direction; where it breaks, end both."""
    try:
        while data := await source.receive_some(READ):
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
        stream.reset(Reason.BROKEN, str(exc))
        await trio.aclose_forcefully(far)
