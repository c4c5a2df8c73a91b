from __future__ import annotations

import pytest
import trio
import trio.testing

from session_proxy.lab import mux_port
from session_proxy.lab.agent import AgentSession
from session_proxy.lab.documents import PORT_FORWARDING, REMOTE_HOST
from session_proxy.lab.faults import Faults
from session_proxy.lab.smux_server import Command, SmuxFrame, SmuxReader
from session_proxy.lab.targets import echo_stream
from session_proxy.protocol.ssm_frames import Flag
from tests.support.lab import open_gateway, open_port, start
from tests.support.ssm_client import PlainClient


def frames(client: PlainClient) -> list[SmuxFrame]:
    return list(SmuxReader().receive_data(bytes(client.data)))


def received(client: PlainClient, stream: int) -> bytes:
    return b"".join(frame.data for frame in frames(client) if frame.stream == stream)


def finished(client: PlainClient, stream: int) -> bool:
    return SmuxFrame(Command.FIN, stream) in frames(client)


async def send(client: PlainClient, *sent: SmuxFrame) -> None:
    await client.send(b"".join(frame.encode() for frame in sent))


@pytest.mark.parametrize(("document", "host"), [(PORT_FORWARDING, None), (REMOTE_HOST, "127.0.0.1")])
async def test_streams_are_connections_of_their_own(document: str, host: str | None) -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port, document, host)):
                await client.wait_complete()
                await send(client, SmuxFrame(Command.SYN, 3), SmuxFrame(Command.SYN, 5))
                await send(client, SmuxFrame(Command.PSH, 5, b"five"), SmuxFrame(Command.PSH, 3, b"three"))
                await client.wait_until(lambda: received(client, 3) == b"three")
                await client.wait_until(lambda: received(client, 5) == b"five")
                await send(client, SmuxFrame(Command.FIN, 3))
                await client.wait_until(lambda: finished(client, 3))
                assert not finished(client, 5)


async def test_a_target_that_closes_finishes_the_stream_after_its_bytes() -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await stream.send_all(bytes(100_000))

    with trio.fail_after(10):
        async with open_port(speak) as port, open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port, PORT_FORWARDING)):
                await client.wait_complete()
                await send(client, SmuxFrame(Command.SYN, 3))
                await client.wait_until(lambda: finished(client, 3))

    assert received(client, 3) == bytes(100_000)
    assert frames(client)[-1] == SmuxFrame(Command.FIN, 3)


async def test_a_dead_port_is_flagged_and_its_stream_finished() -> None:
    with trio.fail_after(10):
        async with open_gateway(Faults(connect_fails=True)) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, 9, PORT_FORWARDING)):
                await client.wait_complete()
                await send(client, SmuxFrame(Command.SYN, 3), SmuxFrame(Command.PSH, 3, b"lost"))
                await client.wait_until(lambda: finished(client, 3))

    assert client.flags == [Flag.CONNECT_TO_PORT_ERROR]


async def test_nonsense_ends_the_session() -> None:
    with trio.fail_after(10):
        async with open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, 9, PORT_FORWARDING)):
                await client.wait_complete()
                await client.send(b"GET / HTTP/1.1\r\n")
                assert (await client.wait_closed()).startswith("Mux error")


async def test_what_belongs_to_no_stream_is_ignored() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port, PORT_FORWARDING)):
                await client.wait_complete()
                await client.send_flag(Flag.DISCONNECT_TO_PORT)
                await send(client, SmuxFrame(Command.NOP, 0), SmuxFrame(Command.PSH, 9, b"?"))
                await send(client, SmuxFrame(Command.SYN, 3), SmuxFrame(Command.PSH, 3, b"!"))
                await client.wait_until(lambda: received(client, 3) == b"!")


async def test_a_stalled_stream_stops_the_others_until_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux_port, "MAX_BUFFERED", 10_000)
    made, connections = trio.open_memory_channel[trio.abc.HalfCloseableStream](2)

    async def connect(_session: AgentSession) -> trio.abc.HalfCloseableStream:
        # Nothing is held on the way, as a socket would: what is sent waits until it is received.
        near, far = trio.testing.lockstep_stream_pair()
        await made.send(far)
        return near

    monkeypatch.setattr(mux_port, "connect_port", connect)
    with trio.fail_after(20):
        async with open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, 9, PORT_FORWARDING)) as websocket:
                await client.wait_complete()
                await send(client, SmuxFrame(Command.SYN, 3))
                stalled = await connections.receive()
                await send(client, SmuxFrame(Command.SYN, 5))
                other = await connections.receive()
                for _ in range(3):
                    await send(client, SmuxFrame(Command.PSH, 3, bytes(9_000)))
                await send(client, SmuxFrame(Command.PSH, 5, b"hello"))
                got: list[bytes] = []

                async def listen() -> None:
                    got.append(bytes(await other.receive_some()))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listen)
                    # The pong proves that everything is there.
                    await websocket.ping(b"there?")
                    await trio.testing.wait_all_tasks_blocked()
                    assert got == []
                    count = 0
                    while count < 27_000:
                        count += len(await stalled.receive_some())
                assert got == [b"hello"]
                await client.wait_acknowledged()


async def test_an_old_keepalive_sends_nops_and_ends_silent_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mux_port, "KEEPALIVE", 0.05)
    monkeypatch.setattr(mux_port, "KEEPALIVE_LIMIT", 0.2)
    with trio.fail_after(10):
        async with open_gateway() as gateway:
            client = PlainClient(version="1.2.0.0")
            async with client.connect(start(gateway, 9, PORT_FORWARDING)):
                assert await client.wait_closed() == "The client does not answer."

    assert frames(client)[0] == SmuxFrame(Command.NOP, 0)
