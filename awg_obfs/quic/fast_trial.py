"""Whether the fast paths through aioquic may be used: the version is theirs, and they pass a trial.

The trial is a conversation in memory, in which fast and stock ends send each other data in both directions while
datagrams get lost. It takes some tens of milliseconds, once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import aioquic

from awg_obfs.quic.aioquic_engine import AioquicEngine
from awg_obfs.quic.certificate import generate_certificate
from awg_obfs.quic.engine import StreamData
from awg_obfs.quic.fast_connection import AIOQUIC_VERSION, FastConnection
from awg_obfs.quic.settings import SMALLEST_DATAGRAM, QuicSettings
from awg_obfs.quic.windowed import WindowedConnection

_AMOUNT = 60_000
_STEP = 0.002
_STEPS = 2_000
# Every so many datagrams one is lost.
_LOSS = 11


@functools.cache
def are_fast_paths_usable() -> bool:
    """Return whether the installed aioquic is the one that the fast paths were written for, and they work."""
    if aioquic.__version__ != AIOQUIC_VERSION:
        return False
    try:
        return try_pair(FastConnection, WindowedConnection) and try_pair(WindowedConnection, FastConnection)
    except (AttributeError, TypeError, KeyError, IndexError, AssertionError):
        # What a name that has moved looks like.
        return False


def try_pair(client_class: type[WindowedConnection], server_class: type[WindowedConnection]) -> bool:
    """Return whether two ends get a stream's data across, there and back, though datagrams get lost."""
    settings = QuicSettings()
    client = AioquicEngine(settings, SMALLEST_DATAGRAM, None, client_class)
    server = AioquicEngine(settings, SMALLEST_DATAGRAM, generate_certificate(), server_class)
    data = bytes(range(256)) * (_AMOUNT // 256)
    now = 0.0
    client.connect(now)
    stream_id = client.open_stream()
    client.send_stream(stream_id, data, end=True)
    there, back = bytearray(), bytearray()
    answered = False
    sent = 0
    for _ in range(_STEPS):
        now += _STEP
        for source, sink in ((client, server), (server, client)):
            datagrams = source.datagrams_to_send(now)
            kept = [
                datagram for number, datagram in enumerate(datagrams, sent) if number % _LOSS != _LOSS - 1
            ]
            sent += len(datagrams)
            if kept:
                sink.receive(kept, now)
            timer = source.next_timer()
            if timer is not None and timer <= now:
                source.handle_timer(now)
        _take(server, there)
        _take(client, back)
        if len(there) == len(data) and not answered:
            answered = True
            server.send_stream(stream_id, bytes(there), end=True)
        if len(back) == len(data):
            return bytes(there) == data and bytes(back) == data
    return False


def _take(engine: AioquicEngine, received: bytearray) -> None:
    for event in engine.take_events():
        if isinstance(event, StreamData):
            chunks: Sequence[bytes] = event.chunks
            for chunk in chunks:
                received += chunk
            engine.consumed(event.stream_id, sum(map(len, chunks)), len(received))
