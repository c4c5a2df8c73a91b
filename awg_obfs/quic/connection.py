"""One QUIC connection as its owner sees it: streams, datagrams, probes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

import trio

from awg_obfs.paths import DatagramPath
from awg_obfs.quic.engine import (
    Buffer,
    DatagramReceived,
    EndInDoubt,
    Engine,
    EngineEvent,
    EngineStatistics,
    Established,
    PingAcknowledged,
    Role,
    StopSending,
    StreamData,
    StreamReset,
    Terminated,
)
from awg_obfs.quic.errors import Cause, ConnectionFailure, ConnectionLostError
from awg_obfs.quic.holding import Holding
from awg_obfs.quic.notes import Kind, Note, NoteReader
from awg_obfs.quic.openings import UNIDIRECTIONAL, Openings
from awg_obfs.quic.pings import Pings
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.stream import NO_ERROR, QuicStream
from awg_obfs.quic.transmitter import Transmitter
from awg_obfs.quic.turns import Turns

# What a packet has around a DATAGRAM frame's data at most: first byte, identifier (20), number (4), the frame's
# type and length (3), and a tag (16); rounded up.
DATAGRAM_OVERHEAD = 64

# How long QUIC's own end of a stream may take once a note has told of it. Then the peer's engine is asked to reset
# the stream, which it repeats, or it would keep the stream for ever.
GRACE = 3.0


class QuicConnection:
    """One connection to the peer at the other end of a path; made by `awg_obfs.quic.driver.open_quic`.

    Whoever reads the path hands what comes to `received`.
    """

    def __init__(
        self,
        role: Role,
        path: DatagramPath,
        engine: Engine,
        settings: QuicSettings,
        on_silence: Callable[[bool], None],
    ) -> None:
        self.role = role
        self._path = path
        self._engine = engine
        self._settings = settings
        self._transmitter = Transmitter(
            role, path, engine, settings, deliver=self._deliver, flushed=self._flushed, on_silence=on_silence
        )
        self._streams: dict[int, QuicStream] = {}
        self._turns = Turns(engine.unsent, settings.send_buffer)
        self._incoming: deque[QuicStream] = deque()
        self._stream_came = trio.lowlevel.ParkingLot()
        self._datagrams: deque[bytes] = deque(maxlen=settings.datagrams)
        self._datagram_came = trio.lowlevel.ParkingLot()
        self._pings = Pings()
        self._ready = trio.Event()
        self._over = trio.Event()
        self._failure: ConnectionFailure | None = None
        self._openings = Openings(next_stream=1 if role is Role.CLIENT else 0, most=settings.streams)
        # See awg_obfs.quic.notes.
        self._note_reader = NoteReader()
        self._holding = Holding()
        self._note_stream: int | None = None
        # When QUIC's own word of an end is due.
        self._told: dict[int, float] = {}

    # -- what the owner calls

    @property
    def failure(self) -> ConnectionFailure | None:
        """Why the connection is over, or None while it is not."""
        return self._failure

    @property
    def silent(self) -> bool:
        """Whether the path counts as dead: nothing was heard for `QuicSettings.silent_after`."""
        return self._transmitter.silent

    @property
    def open_streams(self) -> int:
        """How many streams have not ended in both directions."""
        return len(self._streams)

    @property
    def largest_datagram(self) -> int:
        """The longest *data* of `send_datagram` that fits one packet."""
        return self._path.max_datagram_size - DATAGRAM_OVERHEAD

    def statistics(self) -> EngineStatistics:
        """Return how the connection fares."""
        return self._engine.statistics()

    async def run(self) -> None:
        """Transmit and keep time until the connection is over."""
        await self._transmitter.run()

    async def wait_ready(self) -> None:
        """Wait until the handshake is complete.

        Raises:
          ConnectionLostError: it never will be.

        """
        await self._ready.wait()
        self._check()

    async def wait_closed(self) -> ConnectionFailure:
        """Wait until the connection is over, and return why."""
        await self._over.wait()
        assert self._failure is not None
        return self._failure

    def open_stream(self) -> QuicStream:
        """Open a stream, both ways; what is sent waits while the peer has as many open as it allows.

        Raises:
          ConnectionLostError: the connection is over.

        """
        self._check()
        stream = QuicStream(self, self._engine.open_stream())
        self._streams[stream.stream_id] = stream
        return stream

    async def accept_stream(self) -> QuicStream:
        """Wait for the next stream that the peer opens.

        Raises:
          ConnectionLostError: the connection is over.

        """
        await trio.lowlevel.checkpoint()
        while not self._incoming:
            self._check()
            await self._stream_came.park()
        return self._incoming.popleft()

    def send_datagram(self, data: bytes) -> bool:
        """Send *data* as one DATAGRAM frame; it may get lost.

        Returns:
          Whether it was queued: it is not where it is longer than `largest_datagram`, or where too many wait.

        Raises:
          ConnectionLostError: the connection is over.

        """
        self._check()
        if len(data) > self.largest_datagram or not self._engine.send_datagram(data):
            return False
        self._transmitter.poke()
        return True

    async def receive_datagram(self) -> bytes:
        """Wait for the next DATAGRAM frame.

        Raises:
          ConnectionLostError: the connection is over.

        """
        await trio.lowlevel.checkpoint()
        while not self._datagrams:
            self._check()
            await self._datagram_came.park()
        return self._datagrams.popleft()

    async def probe(self) -> float:
        """Ask the peer for a sign of life, and return how long it took to come, in seconds.

        Raises:
          ConnectionLostError: the connection is over.

        """
        self._check()
        uid = self._pings.begin()
        self._engine.send_ping(uid)
        self._transmitter.poke()
        round_trip = await self._pings.wait(uid)
        self._check()
        assert round_trip is not None
        return round_trip

    def close(self, code: int = 0, reason: str = "", cause: Cause = Cause.CLOSED) -> None:
        """End the connection, and tell the peer."""
        if self._failure is None:
            self._engine.close(code, reason)
            self._end(ConnectionFailure(cause, code, reason))

    def received(self, datagrams: Sequence[Buffer]) -> None:
        """Take what came from the peer."""
        if self._failure is None:
            self._transmitter.received(datagrams)

    def is_replaced_by(self, datagram: Buffer) -> bool:
        """Return whether *datagram* begins another connection than this one: the client has started anew."""
        return self._transmitter.is_replaced_by(datagram)

    # -- what streams call (stream.StreamCarrier)

    def room(self, stream_id: int, wanted: int) -> int:
        """See `StreamCarrier.room`."""
        if stream_id in self._holding.by_peer:
            return 0
        return self._turns.room(stream_id, wanted, trio.current_time())

    def write(self, stream_id: int, data: Buffer, *, end: bool = False) -> None:
        """See `StreamCarrier.write`."""
        if self._failure is None:
            self._engine.send_stream(stream_id, data, end=end)
            self._turns.wrote(stream_id, len(data))
            self._transmitter.poke()

    def await_room(self, stream: QuicStream) -> None:
        """See `StreamCarrier.await_room`."""
        self._turns.wait(stream.stream_id)
        self._transmitter.poke()

    def consumed(self, stream_id: int, amount: int, total: int) -> None:
        """See `StreamCarrier.consumed`."""
        if self._failure is None:
            self._engine.consumed(stream_id, amount, total)
            self._transmitter.poke()

    def reset(self, stream_id: int, code: int) -> None:
        """See `StreamCarrier.reset`."""
        if self._failure is None:
            self._engine.reset_stream(stream_id, code)
            self._turns.forget(stream_id)
            self._transmitter.poke()

    def stop(self, stream_id: int, code: int) -> None:
        """See `StreamCarrier.stop`."""
        if self._failure is None:
            self._engine.stop_stream(stream_id, code)
            self._transmitter.poke()

    def retire(self, stream: QuicStream) -> None:
        """See `StreamCarrier.retire`."""
        if self._streams.pop(stream.stream_id, None) is not None and self._failure is None:
            self._engine.retire(stream.stream_id)
            self._holding.by_peer.discard(stream.stream_id)
            self._turns.forget(stream.stream_id)

    # -- what the transmitter calls

    def _flushed(self) -> float:
        if self._turns.contested:
            self._give_turns(trio.current_time())
        if self._engine.wants_pauses:
            self._send_notes(self._holding.take_notes(self._streams))
        if self._told:
            self._end_told(trio.current_time())
        return self._turns.next_timer()

    def _give_turns(self, now: float) -> None:
        statistics = self._engine.statistics()
        round_trip = statistics.round_trip
        self._turns.flushed(now, statistics.congestion_window / round_trip if round_trip else math.inf)
        for stream_id in self._turns.admit(self._holding.by_peer, now):
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.wake_sender()

    def _deliver(self, event: EngineEvent) -> None:
        match event:
            case StreamData(stream_id, chunks, end):
                self._deliver_data(stream_id, chunks, end=end)
            case DatagramReceived(data):
                self._datagrams.append(data)
                self._datagram_came.unpark()
            case StreamReset(stream_id, code):
                stream = None if stream_id & UNIDIRECTIONAL else self._stream(stream_id)
                if stream is not None:
                    stream.on_reset(code)
            case StopSending(stream_id, code):
                # It may come before what the peer has sent on the stream.
                stream = None if stream_id & UNIDIRECTIONAL else self._stream(stream_id)
                if stream is not None:
                    stream.on_stopped(code)
            case EndInDoubt(stream_id, total):
                self._send_notes([Note(Kind.ENDED, stream_id, total)])
            case PingAcknowledged(uid):
                self._pings.answer(uid)
            case Established():
                self._transmitter.established()
                self._ready.set()
            case Terminated(failure):
                self._end(failure)
            case _:
                assert_never(event)

    def _deliver_data(self, stream_id: int, chunks: list[bytes], *, end: bool) -> None:
        if stream_id & UNIDIRECTIONAL:
            data = b"".join(chunks)
            self._engine.consumed(stream_id, len(data), 0)
            for note in self._note_reader.feed(data):
                self._heed(note)
            return
        stream = self._stream(stream_id)
        if stream is None:
            return
        stream.on_data(chunks, end=end)
        if self._engine.wants_pauses:
            self._holding.filled(stream_id, stream.buffered)

    def _heed(self, note: Note) -> None:
        match note.kind:
            case Kind.GO_ON:
                self._holding.by_peer.discard(note.stream_id)
            case Kind.HOLD:
                if note.stream_id in self._streams:
                    self._holding.by_peer.add(note.stream_id)
            case Kind.ENDED:
                stream = self._streams.get(note.stream_id)
                if stream is not None:
                    self._tell_end(stream, note.total)
                else:
                    # It may have overtaken its stream.
                    self._openings.keep_end(note.stream_id, note.total)

    def _tell_end(self, stream: QuicStream, total: int) -> None:
        if not stream.ended:
            stream.on_end_told(total)
            self._told.setdefault(stream.stream_id, trio.current_time() + GRACE)

    def _end_told(self, now: float) -> None:
        for stream_id in [stream_id for stream_id, due in self._told.items() if due <= now]:
            del self._told[stream_id]
            stream = self._streams.get(stream_id)
            if stream is not None and not stream.ended:
                self._told[stream_id] = now + GRACE
            else:
                self.stop(stream_id, NO_ERROR)

    def _send_notes(self, notes: Sequence[Note]) -> None:
        if notes and self._failure is None:
            if self._note_stream is None:
                self._note_stream = self._engine.open_stream(unidirectional=True)
            self.write(self._note_stream, b"".join(map(bytes, notes)))

    def _stream(self, stream_id: int) -> QuicStream | None:
        """Return the stream, which the peer may have just opened; None where it is over already."""
        stream = self._streams.get(stream_id)
        if stream is None and self._openings.opens(stream_id):
            stream = self._streams[stream_id] = QuicStream(self, stream_id)
            self._incoming.append(stream)
            self._stream_came.unpark()
            total = self._openings.take_end(stream_id)
            if total is not None:
                self._tell_end(stream, total)
        return stream

    def _check(self) -> None:
        if self._failure is not None:
            raise ConnectionLostError(self._failure)

    def _end(self, failure: ConnectionFailure) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        self._transmitter.stop()
        self._ready.set()
        self._over.set()
        self._stream_came.unpark_all()
        self._datagram_came.unpark_all()
        self._pings.give_up()
        for stream in list(self._streams.values()):
            stream.wake()
        self._streams.clear()
