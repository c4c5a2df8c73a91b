from __future__ import annotations

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, Request, TextMessage

from tunnel_relay.wsproto_connection import FastConnection


@pytest.mark.parametrize("step", [1, 2, 7, 100_000])
@pytest.mark.parametrize("role", [ConnectionType.CLIENT, ConnectionType.SERVER])
def test_whatever_the_peer_sends_is_read_as_wsproto_reads_it(role: ConnectionType, step: int) -> None:
    ours, theirs = FastConnection(role), WSConnection(role)
    peer = WSConnection(ConnectionType.SERVER if role is ConnectionType.CLIENT else ConnectionType.CLIENT)
    client, server = (ours, peer) if role is ConnectionType.CLIENT else (peer, ours)
    request = client.send(Request(host="x", target="/"))
    server.receive_data(request)
    assert [type(event) for event in server.events()] == [Request]
    accept = server.send(AcceptConnection())
    stream = [
        BytesMessage(data=b"one"),
        BytesMessage(data=b"two-", message_finished=False),
        Ping(payload=b"in between"),
        BytesMessage(data=b"half"),
        TextMessage(data="text"),
        BytesMessage(data=b""),
        BytesMessage(data=b"x" * 70000),
        Pong(payload=b"p"),
        CloseConnection(code=1000, reason="bye"),
    ]
    if role is ConnectionType.CLIENT:
        data = accept
        ours_events = events_of(ours, data, step)
        assert [type(event) for event in ours_events] == [AcceptConnection]
    else:
        peer.receive_data(accept)
        assert list(peer.events())
    wire = b"".join(peer.send(event) for event in stream)
    found = events_of(ours, wire, step)
    whole = b"".join(event.data for event in found if isinstance(event, BytesMessage))
    assert whole == b"onetwo-half" + b"x" * 70000
    assert "".join(event.data for event in found if isinstance(event, TextMessage)) == "text"
    assert [event.payload for event in found if isinstance(event, Ping)] == [b"in between"]
    assert isinstance(found[-1], CloseConnection)
    assert theirs.client == ours.client


def events_of(connection: WSConnection, data: bytes, step: int) -> list[object]:
    found: list[object] = []
    for start in range(0, len(data), step):
        connection.receive_data(data[start : start + step])
        found += connection.events()
    return found


def test_frames_that_come_with_the_head_are_not_lost() -> None:
    client, server = FastConnection(ConnectionType.CLIENT), WSConnection(ConnectionType.SERVER)
    server.receive_data(client.send(Request(host="x", target="/")))
    assert list(server.events())
    wire = server.send(AcceptConnection()) + server.send(BytesMessage(data=b"early")) + b"\x82\x03to"
    assert [type(event) for event in events_of(client, wire, len(wire))] == [AcceptConnection, BytesMessage]
    (late,) = events_of(client, b"o", 1)
    assert isinstance(late, BytesMessage)
    assert late.data == b"too"


def test_a_frame_against_the_rules_closes_with_1002() -> None:
    client, server = FastConnection(ConnectionType.CLIENT), WSConnection(ConnectionType.SERVER)
    server.receive_data(client.send(Request(host="x", target="/")))
    assert list(server.events())
    assert events_of(client, server.send(AcceptConnection()), 1000)
    (event,) = events_of(client, b"\xc2\x01x", 1)
    assert isinstance(event, CloseConnection)
    assert event.code == 1002
