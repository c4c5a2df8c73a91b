"""The fast connection beside the stock one: the same bytes, however they get mixed."""

from __future__ import annotations

import random

import pytest

from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.windowed import WindowedConnection
from tests.support.quic_engines import EnginePair, aioquic_client, aioquic_server, content, has_ended


@pytest.mark.parametrize("client", [WindowedConnection, FastConnection])
@pytest.mark.parametrize("server", [WindowedConnection, FastConnection])
@pytest.mark.parametrize("seed", range(3))
def test_streams_get_across_however_they_are_written(
    client: type[WindowedConnection], server: type[WindowedConnection], seed: int
) -> None:
    """Small and large pieces on many streams, in any order, while datagrams get lost; resets in between."""
    rng = random.Random(seed)
    pair = EnginePair(aioquic_client(client), aioquic_server(server))
    pair.connect()
    pair.loses = lambda _datagram: rng.random() < 0.05
    streams = {pair.client.open_stream(): b"" for _ in range(12)}
    taken = dict.fromkeys(streams, 0)
    given_up = set(list(streams)[::4])
    for _ in range(120):
        stream_id = rng.choice(list(streams))
        piece = rng.randbytes(rng.choice((1, 30, 1400, 20_000)))
        pair.client.send_stream(stream_id, piece, end=False)
        streams[stream_id] += piece
        if rng.random() < 0.5:
            pair.run(0.003)
            for each in streams:
                total = len(content(pair.at_server, each))
                if total > taken[each]:
                    pair.server.consumed(each, total - taken[each], total)
                    taken[each] = total
    for stream_id in streams:
        if stream_id in given_up:
            pair.client.reset_stream(stream_id, 1)
        else:
            pair.client.send_stream(stream_id, b"", end=True)
    pair.run(3)
    for stream_id, data in streams.items():
        if stream_id in given_up:
            assert data.startswith(content(pair.at_server, stream_id))
        else:
            assert content(pair.at_server, stream_id) == data
            assert has_ended(pair.at_server, stream_id)


def test_streams_that_are_over_are_forgotten() -> None:
    """Aioquic looks at every stream it knows for each packet it builds."""
    pair = EnginePair(aioquic_client(), aioquic_server())
    pair.connect()
    for _ in range(300):
        stream_id = pair.client.open_stream()
        pair.client.send_stream(stream_id, b"question", end=True)
        pair.run(0.004)
        pair.server.send_stream(stream_id, b"answer", end=True)
        pair.server.retire(stream_id)
        pair.run(0.004)
        pair.client.retire(stream_id)
    pair.run(0.1)
    for engine in (pair.client, pair.server):
        assert not engine._connection._streams  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
