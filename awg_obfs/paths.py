"""What QUIC needs of whatever carries its datagrams to one peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class DatagramPath(Protocol):
    """The way to one peer: its session, wherever the peer is just now."""

    @property
    def max_datagram_size(self) -> int:
        """The longest datagram that gets through, in bytes."""
        ...

    @property
    def round_trip(self) -> float | None:
        """How long the peer took to answer when keys were last agreed on, in seconds; None where that is not known."""
        ...

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Send *datagrams* as one container, without waiting; they may get lost."""
        ...
