"""One end of a session: its streams and requests, and what makes them outlive the connections that carry it.

Sans-IO: give it frames and times, and take messages, events and timers. It is attached to one connection at a time,
or to none; while it is to none, what its streams send is kept, as far as there is room, and after the grace period it
is lost with all its streams and requests.
"""

from __future__ import annotations

import attrs

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.exchanges import ExchangeEvent, Exchanges
from tunnel_relay.protocol.frames import EXCHANGES, LINK, NUMBERED, Frame, FrameType
from tunnel_relay.protocol.multiplexer import Multiplexer, Reason, StreamEvent
from tunnel_relay.protocol.resumption import Incoming, Outgoing

KIB, MIB = 1024, 1024 * 1024

SessionEvent = StreamEvent | ExchangeEvent


@attrs.frozen(kw_only=True)
class SessionSettings:
    """Bounds of one end of a session. Both ends need not agree.

    Attributes:
      window: Bytes that may come on a stream before its reader has taken any.
      streams: How many streams the peer may have open.
      sessions: How many sessions one far end keeps, with a connection or without.
      kept: Bytes of streams that are kept until the peer has acknowledged them; more wait with their writers.
      requests: How many requests may be under way, of each end.
      request_bytes: How many bytes they may come to, with the most that their responses may be long.
      request_kept: Bytes of requests and responses that are kept as frames, beside those of streams.
      frames: Frames that are: half of them for streams' bytes, and the others for what cannot wait.
      grace: Seconds without a connection after which the session is lost.
      acknowledge_bytes: Payload after which to acknowledge.
      acknowledge_frames: Frames after which to.
      acknowledge_delay: Seconds after which to, at the latest.

    """

    window: int = 2 * MIB
    streams: int = 1024
    sessions: int = 1024
    kept: int = 8 * MIB
    requests: int = 256
    request_bytes: int = 64 * MIB
    request_kept: int = 1 * MIB
    frames: int = 65536
    grace: float = 120.0
    acknowledge_bytes: int = 512 * KIB
    acknowledge_frames: int = 256
    acknowledge_delay: float = 0.05


@attrs.define(eq=False)
class Session:
    """See the module. *now* is in seconds, of any clock that does not go back.

    Attributes:
      initiator: Whether this end began the session.
      settings: Its bounds.
      since: When it began.

    """

    initiator: bool
    settings: SessionSettings
    since: float
    streams: Multiplexer = attrs.field(init=False)
    exchanges: Exchanges = attrs.field(init=False)
    attached: bool = attrs.field(default=False, init=False)
    lost: str | None = attrs.field(default=None, init=False)
    _outgoing: Outgoing = attrs.field(init=False)
    _incoming: Incoming = attrs.field(init=False)
    _detached_at: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self._outgoing = Outgoing(LINK, settings.frames)
        self._incoming = Incoming(
            settings.acknowledge_bytes, settings.acknowledge_frames, settings.acknowledge_delay
        )
        self.streams = Multiplexer(self._outgoing, self.initiator, settings.window, settings.streams)
        self.exchanges = Exchanges(self._outgoing, settings.requests, settings.request_bytes)
        self._detached_at = self.since

    @property
    def received(self) -> int:
        """The number of the last frame that has arrived: what the peer has to go on behind."""
        return self._incoming.received

    @property
    def unacknowledged(self) -> bool:
        """Whether the peer has not acknowledged all that was said."""
        return self._outgoing.frames > 0

    @property
    def kept(self) -> int:
        """How many bytes are kept for the peer, which may be lost on the way."""
        return self._outgoing.kept

    def attach(self, label: int, received: int) -> None:
        """Go on over a new connection, which calls this session *label*, behind what the peer has *received*.

        Raises:
          RelayProtocolError: that cannot be; the session is of no use any more.

        """
        self._outgoing.resume(received, label)
        self.attached = True

    def detach(self, now: float) -> None:
        """The connection is lost."""
        if self.attached:
            self.attached = False
            self._detached_at = now

    def room(self, stream: int) -> int:
        """Return how many bytes may be sent on the stream now: what the peer grants, and what may be kept."""
        if self._outgoing.frames >= self.settings.frames // 2:
            return 0
        kept = self._outgoing.kept - self._outgoing.kept_of_exchanges
        return max(min(self.streams.room(stream), self.settings.kept - kept), 0)

    @property
    def overrun(self) -> str:
        """Why the session is to be given up, since the peer acknowledges nothing; "" where it does."""
        most = self.settings.frames
        return f"the peer has not acknowledged {most} frames" if self._outgoing.overrun else ""

    def receive(self, frame: Frame, now: float) -> None:
        """Heed a frame that came over the connection; one that came behind what the session was lost for is ignored.

        Raises:
          RelayProtocolError: the peer breaks the rules: `lose` the session.

        """
        if self.lost is not None:
            return
        if frame.type is FrameType.ACK:
            self._outgoing.acknowledge(frame.number)
        elif frame.type not in NUMBERED:
            raise RelayProtocolError(f"{frame.type.name} does not belong to a session")
        elif self._incoming.arrives(frame.number, len(frame.payload), now):
            part = self.exchanges if frame.type in EXCHANGES else self.streams
            part.receive(frame)
        if self._outgoing.overrun:
            raise RelayProtocolError(self.overrun)

    def take_events(self) -> list[SessionEvent]:
        """Return what has happened to streams, and then to requests."""
        return [*self.streams.take_events(), *self.exchanges.take_events()]

    def frames_to_send(self, most: int, now: float) -> list[Frame]:
        """Return what to send now over the connection: *most* bytes, or a frame more."""
        if not self.attached:
            return []
        self.exchanges.fill(self.settings.request_kept - self._outgoing.kept_of_exchanges)
        frames = self._outgoing.take(most)
        if self._incoming.due(now):
            frames.append(Frame(FrameType.ACK, self._outgoing.session, number=self._incoming.acknowledged()))
        return frames

    def next_timer(self) -> float | None:
        """Return when to call `handle_timer` and `frames_to_send`."""
        if self.lost is not None:
            return None
        if not self.attached:
            return self._detached_at + self.settings.grace
        return self._incoming.next_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due: give up what has waited for a connection too long."""
        if not self.attached and now >= self._detached_at + self.settings.grace:
            self.lose(f"no connection for {self.settings.grace:g} s")

    def lose(self, detail: str) -> None:
        """End the session, its streams and requests; *detail* says why."""
        if self.lost is None:
            self.lost = detail
            self.attached = False
            self.streams.lose(Reason.SESSION_LOST, detail)
            self.exchanges.lose(detail)
