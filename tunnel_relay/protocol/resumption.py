"""What a session keeps so that it outlives the connections that carry it.

Each end numbers the frames that must not get lost, and keeps them until the other end says that they have arrived.
When a connection is lost, each end tells the other how far it has got, and goes on from there. The numbers are written
on the frames: one that is missing shows at once, and one that comes twice is passed over.
"""

from __future__ import annotations

import itertools
from collections import deque

import attrs

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import EXCHANGES, Buffer, Frame, FrameType


@attrs.define(eq=False)
class Outgoing:
    """The frames that the peer has not acknowledged.

    Attributes:
      most_frames: How many are kept at most. A peer that makes us say more than this without acknowledging any of it is
        cut off.
      overrun: Whether it has: from then on, nothing is kept any more.

    """

    session: int
    most_frames: int
    # The number of the last frame there is, and of the last one that has arrived.
    last: int = 0
    acknowledged: int = 0
    # Bytes of payload that are kept.
    kept: int = 0
    # Those of them that belong to requests and responses.
    kept_of_exchanges: int = 0
    overrun: bool = False
    # Those that have left over this connection, and those that have not.
    _sent: deque[Frame] = attrs.field(factory=deque[Frame])
    _unsent: deque[Frame] = attrs.field(factory=deque[Frame])

    @property
    def frames(self) -> int:
        """How many frames are kept."""
        return len(self._sent) + len(self._unsent)

    @property
    def unsent(self) -> int:
        """How many frames have not left over this connection."""
        return len(self._unsent)

    def add(self, kind: FrameType, stream: int, payload: Buffer = b"") -> None:
        """Number a frame, and keep it, unless the peer acknowledges nothing: see `overrun`."""
        if self.frames >= self.most_frames:
            self.overrun = True
            return
        self.last += 1
        self._keep(kind, len(payload))
        self._unsent.append(Frame(kind, self.session, stream, self.last, payload))

    def take(self, most: int) -> list[Frame]:
        """Return the frames to send next: *most* bytes, or a frame more."""
        taken: list[Frame] = []
        while self._unsent and most > 0:
            frame = self._unsent.popleft()
            taken.append(frame)
            most -= len(frame)
        self._sent.extend(taken)
        return taken

    def acknowledge(self, number: int) -> None:
        """The peer has everything up to *number*.

        Raises:
          RelayProtocolError: it cannot have.

        """
        if number > self.last - len(self._unsent):
            raise RelayProtocolError(f"the peer acknowledged {number}, which was not sent")
        while self.acknowledged < number:
            frame = self._sent.popleft()
            self._keep(frame.type, -len(frame.payload))
            self.acknowledged += 1

    def resume(self, received: int, session: int) -> None:
        """Go on over a new connection, which calls this *session*, behind what the peer has *received*.

        Raises:
          RelayProtocolError: the peer has forgotten what it had acknowledged, or has what was never sent.

        """
        if received < self.acknowledged:
            raise RelayProtocolError(f"the peer goes on at {received}, and had {self.acknowledged}")
        self.acknowledge(received)
        frames = itertools.chain(self._sent, self._unsent)
        if session != self.session:
            self.session = session
            frames = (attrs.evolve(frame, session=session) for frame in frames)
        self._unsent = deque(frames)
        self._sent.clear()

    def _keep(self, kind: FrameType, length: int) -> None:
        self.kept += length
        if kind in EXCHANGES:
            self.kept_of_exchanges += length


@attrs.define(eq=False)
class Incoming:
    """How far the peer's frames have arrived, and when to say so.

    Attributes:
      every_bytes: Payload after which to acknowledge at once.
      every_frames: Frames after which to.
      delay: Seconds after which to, at the latest.

    """

    every_bytes: int
    every_frames: int
    delay: float
    received: int = 0
    _acknowledged: int = 0
    _bytes: int = 0
    _since: float | None = None

    def arrives(self, number: int, length: int, now: float) -> bool:
        """Take note of a frame with *length* bytes of payload; return whether it is new.

        Raises:
          RelayProtocolError: one before it is missing.

        """
        if number <= self.received:
            # The peer may not know how far we are.
            self._since = self._since if self._since is not None else now
            return False
        if number != self.received + 1:
            raise RelayProtocolError(f"frame {number} came behind {self.received}")
        self.received = number
        self._bytes += length
        if self._since is None:
            self._since = now
        return True

    def due(self, now: float) -> bool:
        """Return whether to acknowledge now."""
        return self._since is not None and (
            self._bytes >= self.every_bytes
            or self.received - self._acknowledged >= self.every_frames
            or now >= self._since + self.delay
        )

    def next_timer(self) -> float | None:
        """Return when to ask `due` again."""
        return None if self._since is None else self._since + self.delay

    def acknowledged(self) -> int:
        """Return what to acknowledge, which is said now."""
        self._acknowledged, self._bytes, self._since = self.received, 0, None
        return self.received
