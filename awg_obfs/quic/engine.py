"""What the driver asks of a QUIC implementation, and what it is told.

An engine does no I/O: it is given datagrams and the time, and asked for datagrams, events and the instant to wake it.
Every call may have made it produce more of each.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

import attrs

from awg_obfs.quic.errors import ConnectionFailure

Buffer = bytes | bytearray | memoryview


class Role(enum.Enum):
    """Which end of a connection one is."""

    CLIENT = enum.auto()
    SERVER = enum.auto()


@attrs.frozen
class Established:
    """The handshake is complete: streams flow both ways."""


@attrs.frozen
class StreamData:
    """The next bytes of a stream, in order; *end* says that they are the last."""

    stream_id: int
    chunks: list[bytes]
    end: bool


@attrs.frozen
class StreamReset:
    """The peer gave up sending; what has not arrived never will (RESET_STREAM)."""

    stream_id: int
    code: int


@attrs.frozen
class StopSending:
    """The peer will read no more, and the engine has reset our direction (STOP_SENDING)."""

    stream_id: int
    code: int


@attrs.frozen
class EndInDoubt:
    """Our end of a stream, after *total* bytes, may have got lost for good: tell the peer in another way."""

    stream_id: int
    total: int


@attrs.frozen
class DatagramReceived:
    """A DATAGRAM frame came (RFC 9221)."""

    data: bytes


@attrs.frozen
class PingAcknowledged:
    """The peer acknowledged the probe with this number."""

    uid: int


@attrs.frozen
class Terminated:
    """The connection is over. A last flush may still take a goodbye to the peer."""

    failure: ConnectionFailure


EngineEvent = (
    Established
    | StreamData
    | StreamReset
    | StopSending
    | EndInDoubt
    | DatagramReceived
    | PingAcknowledged
    | Terminated
)


@attrs.frozen
class EngineStatistics:
    """How the connection fares: seconds and bytes. Zero where nothing was measured yet."""

    round_trip: float
    congestion_window: int
    bytes_in_flight: int


class Engine(Protocol):
    """One QUIC connection without its I/O."""

    def connect(self, now: float) -> None:
        """Start the handshake, as the client."""
        ...

    def receive(self, datagrams: Sequence[Buffer], now: float) -> None:
        """Take what came in."""
        ...

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Return what is to leave now."""
        ...

    def next_timer(self) -> float | None:
        """Return when `handle_timer` is due, or None for never."""
        ...

    def handle_timer(self, now: float) -> None:
        """Do what time demands."""
        ...

    def take_events(self) -> list[EngineEvent]:
        """Return what has happened since the last call, in order."""
        ...

    @property
    def wants_pauses(self) -> bool:
        """Whether a stream's window cannot be held by itself: see awg_obfs.quic.notes."""
        ...

    def open_stream(self, *, unidirectional: bool = False) -> int:
        """Return the number of a new stream, both ways or ours alone."""
        ...

    def send_stream(self, stream_id: int, data: Buffer, *, end: bool) -> None:
        """Queue *data*, without a bound, and the end of the stream after it. Nothing happens once it was reset."""
        ...

    def unsent(self, stream_id: int) -> int:
        """Return how many queued bytes have not left once."""
        ...

    def consumed(self, stream_id: int, amount: int, total: int) -> None:
        """The reader took *amount* bytes, *total* since the stream began: let the peer send as many more."""
        ...

    def reset_stream(self, stream_id: int, code: int) -> None:
        """Give up sending, and what has not arrived yet."""
        ...

    def stop_stream(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more."""
        ...

    def retire(self, stream_id: int) -> None:
        """Both directions have ended, as far as the reader and the writer are concerned: forget it soon."""
        ...

    def send_datagram(self, data: bytes) -> bool:
        """Queue a DATAGRAM frame, which may get lost; return whether there was room for it."""
        ...

    def send_ping(self, uid: int) -> None:
        """Ask for a sign of life; a `PingAcknowledged` follows."""
        ...

    def revive(self, now: float) -> None:
        """The path may work again: send at once what the peer has to acknowledge, whatever is in flight."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye with the next datagrams."""
        ...

    def statistics(self) -> EngineStatistics:
        """Return how the connection fares."""
        ...
