"""Sessions under Trio: streams that go on over whichever link there is."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import attrs
import trio

from tunnel_relay.asking import AskedRequest, Asking
from tunnel_relay.errors import RelayProtocolError, RequestLostError
from tunnel_relay.link import FrameCarrier
from tunnel_relay.protocol.exchanges import RequestLost, RequestReceived, ResponseReceived
from tunnel_relay.protocol.frames import Frame
from tunnel_relay.protocol.multiplexer import (
    Reason,
    StreamOpened,
)
from tunnel_relay.protocol.requests import Request, Response
from tunnel_relay.protocol.session import Session, SessionEvent, SessionSettings
from tunnel_relay.relay_stream import RelayStream, StreamResetError


@attrs.define(eq=False)
class LiveSession:
    """One end of a session, its streams and requests, and the link that carries it at the moment.

    Attributes:
      session: What it is without I/O.
      opened: Called with each stream that the peer opens, and what it asks for; must not block.
      asked: Called with each request of the peer; must not block. Without it, none is done.

    """

    session: Session
    opened: Callable[[RelayStream, bytes], None]
    asked: Callable[[AskedRequest], None] | None = None
    _link: FrameCarrier | None = None
    _streams: dict[int, RelayStream] = attrs.field(factory=dict[int, "RelayStream"])
    _waiting: deque[trio.Event] = attrs.field(factory=deque[trio.Event])
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _asking: Asking = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._asking = Asking(self.session, self.poke, self.asked)

    @classmethod
    def new(
        cls,
        *,
        initiator: bool,
        settings: SessionSettings,
        opened: Callable[[RelayStream, bytes], None],
        asked: Callable[[AskedRequest], None] | None = None,
    ) -> LiveSession:
        """Return a session that begins now."""
        return cls(Session(initiator=initiator, settings=settings, since=trio.current_time()), opened, asked)

    async def run(self) -> None:
        """Keep time until the session is lost."""
        while self.session.lost is None:
            self._changed = trio.Event()
            timer = None if self.session.attached else self.session.next_timer()
            with trio.move_on_at(math.inf if timer is None else timer):
                await self._changed.wait()
            self.session.handle_timer(trio.current_time())
            self._tell()

    def attach(self, link: FrameCarrier, label: int, received: int) -> None:
        """Go on over *link*; see `Session.attach`.

        Raises:
          RelayProtocolError: that cannot be.

        """
        self.detach()
        self.session.attach(label, received)
        self._link = link
        link.add(self)
        self._changed.set()

    def detach(self) -> None:
        """The link is lost, or carries this no more."""
        if self._link is not None:
            self._link.remove(self)
            self._link = None
            self.session.detach(trio.current_time())
            self._changed.set()

    def receive(self, frame: Frame) -> None:
        """Heed a frame; a peer that breaks the rules loses the session."""
        try:
            self.session.receive(frame, trio.current_time())
        except RelayProtocolError as exc:
            self.lose(str(exc))
        self._tell()

    def lose(self, detail: str) -> None:
        """Give up the session and its streams."""
        self.session.lose(detail)
        self.detach()
        self._tell()
        self._changed.set()

    def open_stream(self, request: bytes) -> RelayStream:
        """Open a stream; use it after `RelayStream.wait_accepted`.

        Raises:
          StreamResetError: there is no session any more.

        """
        if self.session.lost is not None:
            raise StreamResetError(Reason.SESSION_LOST, self.session.lost)
        stream = RelayStream(self, self.session.streams.open(request))
        self._streams[stream.number] = stream
        self.poke()
        return stream

    async def ask(self, request: Request) -> Response:
        """Return what has become of *request*; see `Asking.ask`.

        Raises:
          RequestLostError: the session ended first.

        """
        return await self._asking.ask(request)

    async def wait_attached(self) -> None:
        """Wait until there is a link.

        Raises:
          RequestLostError: the session ended first.

        """
        while not self.session.attached:
            if self.session.lost is not None:
                raise RequestLostError(self.session.lost)
            await self.wait_room()

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    @property
    def busy(self) -> bool:
        """Whether there are streams, or some of what was sent has not arrived."""
        return bool(self._streams) or (self.session.lost is None and self.session.unacknowledged)

    async def wait_lost(self) -> str:
        """Return why the session is lost, once it is."""
        while self.session.lost is None:
            await self.wait_room()
        return self.session.lost

    # -- what the link calls

    def frames_to_send(self, most: int, now: float) -> list[Frame]:
        """See `Source.frames_to_send`."""
        return self.session.frames_to_send(most, now)

    def next_timer(self) -> float | None:
        """See `Source.next_timer`."""
        return self.session.next_timer()

    # -- what streams call

    def poke(self) -> None:
        """There is something to send, or too much."""
        if self.session.overrun:
            self.lose(self.session.overrun)
        if self._link is not None:
            self._link.poke()

    async def wait_room(self) -> None:
        """Wait until more may be kept than now, or something else has changed."""
        event = trio.Event()
        self._waiting.append(event)
        await event.wait()

    def forget(self, stream: RelayStream) -> None:
        """The stream is closed."""
        self._streams.pop(stream.number, None)
        self._wake()

    def _tell(self) -> None:
        for event in self.session.take_events():
            self._heed(event)
        # Acknowledgements make room for all.
        self._wake()
        self._asking.wake()

    def _wake(self) -> None:
        while self._waiting:
            self._waiting.popleft().set()

    def _heed(self, event: SessionEvent) -> None:
        if isinstance(event, RequestReceived | ResponseReceived | RequestLost):
            self._asking.heed(event)
            return
        if isinstance(event, StreamOpened):
            stream = self._streams[event.stream] = RelayStream(self, event.stream)
            self.opened(stream, event.request)
            return
        stream = self._streams.get(event.stream)
        if stream is not None:
            stream.heed(event)
