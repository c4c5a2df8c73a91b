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

READ = 64 * 1024

Connect = Callable[[str], Awaitable[trio.abc.HalfCloseableStream]]
"""Connects to what a stream asks for, or raises `StreamRefusedError`."""


@attrs.define(eq=False)
class _Kept:
    live: LiveSession
    fence: int = 0
    label: int = LINK


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
    _labels: dict[int, _Kept] = attrs.field(factory=dict[int, _Kept], init=False)
    _link: FrameCarrier | None = attrs.field(default=None, init=False)
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
        """Nothing here ends with the server that leads here."""
        return False

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
                word = read_go_away(frame.payload)
                if word.lost:
                    # The client will not come back.
                    kept.live.lose(word.detail)
                else:
                    kept.live.detach()
            else:
                kept.live.receive(frame)

    def _begin(self, frame: Frame) -> None:
        hello = read_hello(frame.payload)
        kept = self._sessions.get(hello.token)
        if kept is None and self.draining:
            # There may be another one to go to, or there will be.
            self._go_away(frame.session, self.draining, lost=False)
            return
        if kept is None and len(self._sessions) >= self.settings.sessions:
            self._go_away(frame.session, f"{len(self._sessions)} sessions are kept already", lost=False)
            return
        if kept is None:
            live = LiveSession.new(
                initiator=False, settings=self.settings, opened=self._opened, asked=self.asked
            )
            kept = self._sessions[hello.token] = _Kept(live)
            self.nursery.start_soon(self._keep, hello.token, kept)
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
        arrived = kept.live.session.received
        welcome = Welcome(instance=self.instance, received=arrived, record=self.record)
        self._link.send(Frame(FrameType.WELCOME, label, payload=write(welcome)))
        try:
            kept.live.attach(self._link, label, received)
        except RelayProtocolError as exc:
            kept.live.lose(str(exc))

    def _go_away(self, label: int, detail: str, *, lost: bool = True) -> None:
        assert self._link is not None
        self._link.send(Frame(FrameType.GOAWAY, label, payload=write(GoAway(lost=lost, detail=detail))))

    async def _keep(self, token: str, kept: _Kept) -> None:
        await kept.live.run()
        del self._sessions[token]
        if self._labels.get(kept.label) is kept:
            # The client has broken the rules, or it was given up here; there is nothing to come back to.
            del self._labels[kept.label]
            self._go_away(kept.label, kept.live.session.lost or "")

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
