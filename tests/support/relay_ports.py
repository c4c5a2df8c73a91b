"""A link of the switch, of which the test is the other end."""

from __future__ import annotations

import attrs

from tunnel_relay.link import Source
from tunnel_relay.protocol.frames import Frame


@attrs.define(eq=False)
class Carrier:
    """Sends nothing but when it is asked to; *own* is what goes before all others."""

    own: list[Frame] = attrs.field(factory=list[Frame])
    sources: list[Source] = attrs.field(factory=list[Source])

    def send(self, frame: Frame) -> None:
        """See `FrameCarrier`."""
        self.own.append(frame)

    def add(self, source: Source) -> None:
        """See `FrameCarrier`."""
        self.sources.append(source)

    def remove(self, source: Source) -> None:
        """See `FrameCarrier`."""
        self.sources.remove(source)

    def poke(self) -> None:
        """See `FrameCarrier`."""

    def take(self) -> list[Frame]:
        """Return all that its sources have to send."""
        return [frame for source in self.sources for frame in source.frames_to_send(1 << 40, 0.0)]
