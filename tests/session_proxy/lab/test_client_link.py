from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from session_proxy.lab.client_link import ClientLink, FrailStream, LinkClosedError, RateMeter
from session_proxy.lab.faults import Faults
from session_proxy.lab.websocket_frames import Opcode, encode_frame

MASK = bytes(4)


def client_frame(first: int, payload: bytes) -> bytes:
    """A short frame of a client's, with a mask that changes nothing."""
    return bytes((0x80 | first, 0x80 | len(payload))) + MASK + payload


async def receive(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await stream.receive_some(size - len(data))
    return bytes(data)


async def open_tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.testing.open_stream_to_socket_listener(listener)
        return client, await listener.accept()


async def test_a_ping_is_answered_and_a_close_too() -> None:
    far, near = await open_tcp_pair()
    link = ClientLink(FrailStream(near, Faults()), client_frame(Opcode.TEXT, b"before"))
    assert await link.receive() == b"before"
    got: list[bytes] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.serve, got.append)
            await far.send_all(client_frame(Opcode.PING, b"keepalive") + client_frame(Opcode.BINARY, b"data"))
            assert await receive(far, 11) == encode_frame(Opcode.PONG, b"keepalive")
            await far.send_all(client_frame(Opcode.PONG, b"") + client_frame(Opcode.CLOSE, b"\x03\xe8bye"))
            assert await receive(far, 4) == encode_frame(Opcode.CLOSE, b"\x03\xe8")

    assert got == [b"data"]
    with pytest.raises(LinkClosedError):
        await link.receive()
    await far.aclose()
    await near.aclose()


async def test_a_broken_protocol_is_answered_with_its_code() -> None:
    far, near = await open_tcp_pair()
    link = ClientLink(FrailStream(near, Faults()))
    await far.send_all(b"\x82\x05hello")
    with trio.fail_after(10):
        await link.serve(lambda _: pytest.fail("no message"))
        assert (await receive(far, 4))[2:] == (1002).to_bytes(2, "big")
    await far.aclose()
    await near.aclose()


async def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    """What it does not take waits, in order, and comes when it reads."""
    client, server = await open_tcp_pair()
    link = ClientLink(FrailStream(server, Faults()))
    message = bytes(range(256)) * 1024
    got: list[bytes] = []
    with trio.fail_after(10):
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(link.serve, got.append)
            sent = 0
            while link.backlog < 2 * len(message):
                assert link.post([message])
                sent += 1
            await trio.testing.wait_all_tasks_blocked()
            assert link.post([message])
            await client.send_all(client_frame(Opcode.BINARY, b"still heard"))
            expected = encode_frame(Opcode.BINARY, message) * (sent + 1)
            assert await receive(client, len(expected)) == expected
            assert got == [b"still heard"]
            assert link.backlog == 0
            link.close(1001)
            assert (await receive(client, 4))[2:] == (1001).to_bytes(2, "big")
            assert not link.post([b"too late"])
            await client.send_all(client_frame(Opcode.CLOSE, b"\x03\xe9"))


@pytest.mark.parametrize("resets", [False, True])
async def test_a_cut_ends_or_resets_the_connection(resets: bool) -> None:
    client, server = await open_tcp_pair()
    link = ClientLink(FrailStream(server, Faults(cut_resets=resets)))
    with trio.fail_after(10):
        async with client, trio.open_nursery() as nursery:

            async def serve() -> None:
                async with server:
                    await link.serve(lambda _: None)

            nursery.start_soon(serve)
            await trio.testing.wait_all_tasks_blocked()
            link.cut()
            if resets:
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
            else:
                assert await client.receive_some() == b""
                await client.send_all(b"heard out")
                await client.send_eof()
    assert not link.post([b"gone"])


async def test_a_client_that_is_gone_is_noticed_by_whoever_posts() -> None:
    client, server = await open_tcp_pair()
    link = ClientLink(FrailStream(server, Faults()))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await client.aclose()
    with pytest.raises(LinkClosedError):
        await link.receive()
    assert not link.post([b"one"]) or not link.post([b"two"])
    await server.aclose()


async def test_a_silenced_stream_stands_still_and_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()
    faults = Faults(silent=True)
    stream = FrailStream(near, faults)
    await far.send_all(b"held")
    with trio.move_on_after(1) as reading:
        await stream.receive_some()
    with trio.move_on_after(1) as writing:
        await stream.send_all(b"never")
    assert reading.cancelled_caught
    assert writing.cancelled_caught

    faults.silent = False
    await stream.wait_send_all_might_not_block()
    await stream.send_all(b"now")
    assert await far.receive_some() == b"now"
    await stream.aclose()
    assert await far.receive_some() == b""
    del autojump_clock


async def test_a_cut_stream_is_broken_even_while_silenced() -> None:
    near, far = trio.testing.memory_stream_pair()
    stream = FrailStream(near, Faults(silent=True))
    stream.cut = True
    await far.send_all(b"lost")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"lost")


def test_a_meter_counts_within_a_second() -> None:
    meter = RateMeter()

    assert [meter.count(now) for now in (5.0, 5.5, 5.9, 6.0, 6.1, 9.0)] == [1, 2, 3, 1, 2, 1]
