from __future__ import annotations

import pytest
import trio
import trio.testing

from session_proxy.events import ConnectionClosed, ConnectionOpened
from session_proxy.inbound.client import serve_client
from session_proxy.policy.rules import Decision
from session_proxy.profile.model import Limits
from session_proxy.protocol.sniff import TLS_REFUSAL
from session_proxy.target import Target
from tests.support.doors import FakeDialer, open_door, open_inner_door
from tests.support.sockets import LOOPBACK, echo, open_server, read_all, read_exactly, stream_pair


async def test_a_silent_client_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with open_inner_door(limits=Limits(handshake=10)) as (door, events):
        begin = trio.current_time()
        with stream_pair() as (_client, near):
            await serve_client(door, near, "somebody")
            assert near.socket.fileno() < 0
    assert trio.current_time() - begin == pytest.approx(10)
    assert events.of(ConnectionOpened) == [ConnectionOpened(1, "somebody")]
    (closed,) = events.of(ConnectionClosed)
    assert (closed.outcome, closed.protocol, closed.duration) == (
        "handshake-timeout",
        "unknown",
        pytest.approx(10),
    )


async def test_a_client_that_only_looks_whether_the_port_is_open_is_fine() -> None:
    async with open_inner_door() as (door, events):
        with stream_pair() as (client, near):
            client.close()
            await serve_client(door, near, "somebody")
    assert events.of(ConnectionClosed)[0].outcome == "ok"


async def test_a_client_without_a_word_is_sent_away_when_the_door_drains() -> None:
    async with open_inner_door() as (door, events):
        with stream_pair() as (_client, near):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_client, door, near, "somebody")
                await trio.testing.wait_all_tasks_blocked()
                door.drain()
    assert events.of(ConnectionClosed)[0].outcome == "ok"


@pytest.mark.parametrize(
    ("data", "answer", "protocol", "detail"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", TLS_REFUSAL, "tls", "TLS; give it the proxy as http://"),
        (b"\x00\x01\x02", b"", "unknown", "neither SOCKS nor HTTP"),
    ],
)
async def test_another_protocol_gets_one_answer(
    data: bytes, answer: bytes, protocol: str, detail: str
) -> None:
    async with open_door() as door:
        async with await door.connect() as client:
            await client.send_all(data)
            try:
                assert await read_all(client) == answer
            except trio.BrokenResourceError:
                assert not answer
        closed = await door.events.closed()
    assert (closed.outcome, closed.protocol) == ("protocol-error", protocol)
    assert detail in closed.detail


@pytest.mark.parametrize("step", [1, 100])
async def test_an_ssh_client_is_told_at_once_in_its_own_words(step: int) -> None:
    """It waits for our version string, and would wait until the handshake's time is up."""
    async with open_door() as door:
        async with await door.connect() as client:
            hello = b"SSH-2.0-OpenSSH_9.2\r\n"
            with trio.fail_after(5):
                for at in range(0, len(hello), step):
                    await client.send_all(hello[at : at + step])
                answer = await read_all(client)
        closed = await door.events.closed()
    assert answer.startswith(b"SSH-2.0-")
    assert b"SOCKS and HTTP proxy, and no SSH server" in answer
    assert (closed.outcome, closed.protocol) == ("protocol-error", "ssh")
    assert "ProxyCommand" in closed.detail


async def test_all_protocols_share_one_port() -> None:
    async with open_server(echo) as port, open_door() as door:
        target = f"{LOOPBACK}:{port}".encode()
        address = bytes((127, 0, 0, 1))
        for request, answer in [
            (b"\x05\x01\x00\x05\x01\x00\x01" + address + port.to_bytes(2, "big"), 12),
            (b"\x04\x01" + port.to_bytes(2, "big") + address + b"\x00", 8),
            (b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n\r\n", 39),
        ]:
            async with await door.connect() as client:
                await client.send_all(request)
                await read_exactly(client, answer)
                await client.send_all(b"hello")
                assert await read_exactly(client, 5) == b"hello"
        await door.events.closed(3)
        assert [closed.protocol for closed in door.events.of(ConnectionClosed)] == [
            "socks5",
            "socks4",
            "http",
        ]


@pytest.mark.parametrize("takes_early", [True, False])
@pytest.mark.parametrize("protocol", ["socks5", "socks4", "http"])
async def test_what_is_sent_ahead_of_an_answer_arrives_once(protocol: str, takes_early: bool) -> None:
    """Whether it travels with the request for the connection, or behind it."""
    async with open_server(echo) as port, open_door(FakeDialer(takes_early=takes_early)) as door:
        address = port.to_bytes(2, "big"), bytes((127, 0, 0, 1))
        request, answer = {
            "socks5": (b"\x05\x01\x00\x05\x01\x00\x01" + address[1] + address[0], 12),
            "socks4": (b"\x04\x01" + address[0] + address[1] + b"\x00", 8),
            "http": (b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % port, 39),
        }[protocol]
        async with await door.connect() as client:
            await client.send_all(request + b"early")
            await client.send_eof()
            assert (await read_all(client))[answer:] == b"early"
        closed = await door.events.closed()
    assert (closed.outcome, closed.sent, closed.received) == ("ok", 5, 5)


async def test_a_mistake_of_ours_is_not_hidden() -> None:
    class Broken(FakeDialer):
        async def decide(self, target: Target) -> Decision:
            raise ZeroDivisionError

    async with open_inner_door(Broken()) as (door, events):
        with stream_pair() as (client, near):
            await client.send_all(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00")
            await trio.lowlevel.wait_readable(near.socket)
            with pytest.raises(ZeroDivisionError):
                await serve_client(door, near, "somebody")
    assert len(events.of(ConnectionClosed)) == 1
