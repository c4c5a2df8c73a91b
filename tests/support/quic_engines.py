"""Two engines without their I/O, moved by hand in a time of their own."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from awg_obfs.quic.aioquic_engine import AioquicEngine
from awg_obfs.quic.engine import Engine, EngineEvent, StreamData
from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.windowed import WindowedConnection
from tests.support.quic_link import CERTIFICATE

DATAGRAM = 1350


def aioquic_client(
    connection_class: type[WindowedConnection] = FastConnection, settings: QuicSettings | None = None
) -> AioquicEngine:
    """Return a client's engine."""
    return AioquicEngine(settings or QuicSettings(), DATAGRAM, None, connection_class)


def aioquic_server(
    connection_class: type[WindowedConnection] = FastConnection, settings: QuicSettings | None = None
) -> AioquicEngine:
    """Return a server's engine."""
    return AioquicEngine(settings or QuicSettings(), DATAGRAM, CERTIFICATE, connection_class)


@attrs.define(eq=False)
class EnginePair:
    """A client and a server; `run` carries datagrams between them at once, unless *loses* takes them."""

    client: Engine
    server: Engine
    loses: Callable[[bytes], bool] = attrs.field(default=lambda _datagram: False)
    now: float = 1.0
    at_client: list[EngineEvent] = attrs.field(factory=list[EngineEvent])
    at_server: list[EngineEvent] = attrs.field(factory=list[EngineEvent])
    up: list[bytes] = attrs.field(factory=list[bytes])
    down: list[bytes] = attrs.field(factory=list[bytes])

    def connect(self) -> None:
        """Complete the handshake."""
        self.client.connect(self.now)
        self.run(0.2)

    def run(self, seconds: float) -> None:
        """Let time pass, in steps of a millisecond."""
        for _ in range(round(seconds * 1000)):
            self.now += 0.001
            for source, sink, sent in (
                (self.client, self.server, self.up),
                (self.server, self.client, self.down),
            ):
                datagrams = source.datagrams_to_send(self.now)
                sent += datagrams
                arriving = [datagram for datagram in datagrams if not self.loses(datagram)]
                if arriving:
                    sink.receive(arriving, self.now)
            for engine, events in ((self.client, self.at_client), (self.server, self.at_server)):
                timer = engine.next_timer()
                if timer is not None and timer <= self.now:
                    engine.handle_timer(self.now)
                events += engine.take_events()


def content(events: list[EngineEvent], stream_id: int) -> bytes:
    """Return what came on a stream."""
    return b"".join(
        chunk
        for event in events
        if isinstance(event, StreamData) and event.stream_id == stream_id
        for chunk in event.chunks
    )


def has_ended(events: list[EngineEvent], stream_id: int) -> bool:
    """Return whether the end of a stream came."""
    return any(
        isinstance(event, StreamData) and event.stream_id == stream_id and event.end for event in events
    )
