"""Run one QUIC connection under Trio: one task transmits, keeps time and watches the path."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import assert_never

import attrs
import trio

from awg_obfs.paths import DatagramPath
from awg_obfs.quic.certificate import ServerCertificate, generate_certificate
from awg_obfs.quic.engine import (
    Buffer,
    DatagramReceived,
    Engine,
    EngineEvent,
    Established,
    PingAcknowledged,
    Role,
    StopSending,
    StreamData,
    StreamReset,
    Terminated,
)
from awg_obfs.quic.engines import create_engine
from awg_obfs.quic.errors import Cause, ConnectionFailure, ConnectionLostError
from awg_obfs.quic.headers import LOWEST_FIRST_BYTE, Names, begins_connection, forgotten_connection
from awg_obfs.quic.liveness import Finding, PathWatch
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.stream import QuicStream


@attrs.define(eq=False)
class _Ping:
    sent_at: float
    answered: trio.Event = attrs.field(factory=trio.Event)
    round_trip: float = math.nan


class QuicConnection:
    """One connection to the peer at the other end of a path; made by `open_quic`.

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
        self._on_silence = on_silence
        self._watch = PathWatch(
            settings.probe_after if role is Role.CLIENT else 0.0, settings.silent_after, trio.current_time()
        )
        self._names = Names()
        self._engine = engine
        self._settings = settings
        self._streams: dict[int, QuicStream] = {}
        self._awaiting_room: dict[int, QuicStream] = {}
        self._incoming: deque[QuicStream] = deque()
        self._stream_came = trio.lowlevel.ParkingLot()
        self._datagrams: deque[bytes] = deque(maxlen=settings.datagrams)
        self._datagram_came = trio.lowlevel.ParkingLot()
        self._pings: dict[int, _Ping] = {}
        self._next_ping = 1
        self._ready = trio.Event()
        self._over = trio.Event()
        self._failure: ConnectionFailure | None = None
        self._poked = trio.Event()

    # -- what the owner calls

    @property
    def failure(self) -> ConnectionFailure | None:
        """Why the connection is over, or None while it is not."""
        return self._failure

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

    def send_datagram(self, data: bytes) -> None:
        """Send *data* as one DATAGRAM frame; it may get lost.

        Raises:
          ConnectionLostError: the connection is over.

        """
        self._check()
        self._engine.send_datagram(data)
        self.poke()

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
        uid = self._next_ping
        self._next_ping += 1
        self._pings[uid] = ping = _Ping(trio.current_time())
        try:
            self._engine.send_ping(uid)
            self.poke()
            await ping.answered.wait()
            self._check()
        finally:
            del self._pings[uid]
        return ping.round_trip

    def close(self, code: int = 0, reason: str = "") -> None:
        """End the connection, and tell the peer."""
        if self._failure is None:
            self._engine.close(code, reason)
            self._end(ConnectionFailure(Cause.CLOSED, code, reason))

    @property
    def silent(self) -> bool:
        """Whether the path counts as dead: nothing was heard for `QuicSettings.silent_after`."""
        return self._watch.silent

    def received(self, datagrams: Sequence[Buffer]) -> None:
        """Take what came from the peer."""
        if self._failure is not None:
            return
        if any(not datagram or datagram[0] < LOWEST_FIRST_BYTE for datagram in datagrams):
            datagrams = self._without_notices(datagrams)
        if datagrams and self._failure is None:
            now = trio.current_time()
            self._names.learn(datagrams[0], ours=False)
            self._engine.receive(datagrams, now)
            self._deliver()
            if self._watch.heard(now):
                self._path_returned(now)
            self.poke()

    def is_replaced_by(self, datagram: Buffer) -> bool:
        """Return whether *datagram* begins another connection than this one: the client has started anew."""
        return (
            self.role is Role.SERVER
            and begins_connection(datagram)
            and self._names.are_strangers_to(datagram)
        )

    # -- what streams call (stream.StreamCarrier)

    def room(self, stream_id: int) -> int:
        """See `StreamCarrier.room`."""
        return self._settings.send_buffer - self._engine.unsent(stream_id)

    def write(self, stream_id: int, data: Buffer, *, end: bool = False) -> None:
        """See `StreamCarrier.write`."""
        if self._failure is None:
            self._engine.send_stream(stream_id, data, end=end)
            self.poke()

    def await_room(self, stream: QuicStream) -> None:
        """See `StreamCarrier.await_room`."""
        self._awaiting_room[stream.stream_id] = stream

    def consumed(self, stream_id: int, amount: int, total: int) -> None:
        """See `StreamCarrier.consumed`."""
        if self._failure is None:
            self._engine.consumed(stream_id, amount, total)
            self.poke()

    def reset(self, stream_id: int, code: int) -> None:
        """See `StreamCarrier.reset`."""
        if self._failure is None:
            self._engine.reset_stream(stream_id, code)
            self.poke()

    def stop(self, stream_id: int, code: int) -> None:
        """See `StreamCarrier.stop`."""
        if self._failure is None:
            self._engine.stop_stream(stream_id, code)
            self.poke()

    def retire(self, stream: QuicStream) -> None:
        """See `StreamCarrier.retire`."""
        self._streams.pop(stream.stream_id, None)

    # -- the task

    def poke(self) -> None:
        """Have the transmitter look at the engine again."""
        self._poked.set()

    async def run(self) -> None:
        """Transmit and keep time until the connection is over."""
        if self.role is Role.CLIENT:
            self._engine.connect(trio.current_time())
        while self._failure is None:
            self._poked = trio.Event()
            self.flush()
            with trio.move_on_at(self._next_timer()) as waiting:
                await self._poked.wait()
                # Let everybody who was woken with us have a say before the next flush.
                await trio.lowlevel.checkpoint()
            if waiting.cancelled_caught:
                self._handle_timers(trio.current_time())

    def _next_timer(self) -> float:
        timers = (self._engine.next_timer(), self._watch.next_timer())
        return min((timer for timer in timers if timer is not None), default=math.inf)

    def _handle_timers(self, now: float) -> None:
        timer = self._engine.next_timer()
        if timer is not None and timer <= now:
            self._engine.handle_timer(now)
            self._deliver()
        finding = self._watch.handle_timer(now)
        if finding is not Finding.NOTHING and self._failure is None and self._ready.is_set():
            self._engine.revive(now)
            if finding is Finding.PROBE_AND_TELL:
                self._on_silence(True)

    def _path_returned(self, now: float) -> None:
        if self._failure is None and self._ready.is_set():
            self._engine.revive(now)
        if self._watch.silent:
            self._watch.silent = False
            self._on_silence(False)

    def _without_notices(self, datagrams: Sequence[Buffer]) -> list[Buffer]:
        """Return what of *datagrams* is QUIC, having heeded what is not."""
        kept: list[Buffer] = []
        for datagram in datagrams:
            if datagram and datagram[0] >= LOWEST_FIRST_BYTE:
                kept.append(datagram)
            elif self._names.peer and forgotten_connection(datagram) == self._names.peer:
                self._end(ConnectionFailure(Cause.FORGOTTEN))
        return kept

    def flush(self) -> None:
        """Send what the engine has to say."""
        datagrams = self._engine.datagrams_to_send(trio.current_time())
        if datagrams:
            self._names.learn(datagrams[-1], ours=True)
            self._path.send(datagrams)
        if self._awaiting_room:
            for stream_id, stream in list(self._awaiting_room.items()):
                if self.room(stream_id) > 0:
                    del self._awaiting_room[stream_id]
                    stream.wake_sender()

    def _check(self) -> None:
        if self._failure is not None:
            raise ConnectionLostError(self._failure)

    def _deliver(self) -> None:
        for event in self._engine.take_events():
            self._deliver_one(event)

    def _deliver_one(self, event: EngineEvent) -> None:
        match event:
            case StreamData(stream_id, chunks, end):
                self._stream(stream_id).on_data(chunks, end=end)
            case DatagramReceived(data):
                self._datagrams.append(data)
                self._datagram_came.unpark()
            case StreamReset(stream_id, code):
                self._stream(stream_id).on_reset(code)
            case StopSending(stream_id, code):
                stream = self._streams.get(stream_id)
                if stream is not None:
                    stream.on_stopped(code)
            case PingAcknowledged(uid):
                ping = self._pings.get(uid)
                if ping is not None:
                    ping.round_trip = trio.current_time() - ping.sent_at
                    ping.answered.set()
            case Established():
                self._ready.set()
            case Terminated(failure):
                self._end(failure)
            case _:
                assert_never(event)

    def _stream(self, stream_id: int) -> QuicStream:
        """Return the stream, which the peer has just opened where we do not know it."""
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = QuicStream(self, stream_id)
            self._incoming.append(stream)
            self._stream_came.unpark()
        return stream

    def _end(self, failure: ConnectionFailure) -> None:
        # The engine's last words, while it still has a path.
        self.flush()
        self._failure = failure
        self._ready.set()
        self._over.set()
        self._stream_came.unpark_all()
        self._datagram_came.unpark_all()
        for ping in self._pings.values():
            ping.answered.set()
        for stream in list(self._streams.values()):
            stream.wake()
        self._streams.clear()
        self._awaiting_room.clear()
        self.poke()


@asynccontextmanager
async def open_quic(
    role: Role,
    path: DatagramPath,
    *,
    settings: QuicSettings | None = None,
    certificate: ServerCertificate | None = None,
    on_silence: Callable[[bool], None] = lambda _: None,
) -> AsyncGenerator[QuicConnection]:
    """Run a QUIC connection over *path* while the block lasts; leaving it closes the connection.

    The block begins at once: hand what comes to `QuicConnection.received`, then `QuicConnection.wait_ready`.

    Args:
      role: Which end to be. A server waits for a client.
      path: The way to the peer, authenticated and encrypted by what carries it.
      settings: Limits and intervals.
      certificate: A server's, when it has one to use for several connections.
      on_silence: Called with True when the path counts as dead, and with False once the peer is heard again.

    """
    settings = settings or QuicSettings()
    if role is Role.SERVER and certificate is None:
        certificate = generate_certificate()
    engine = create_engine(settings, path.max_datagram_size, certificate if role is Role.SERVER else None)
    connection = QuicConnection(role, path, engine, settings, on_silence)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        try:
            yield connection
        finally:
            connection.close()
            nursery.cancel_scope.cancel()
