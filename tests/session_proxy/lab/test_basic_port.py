from __future__ import annotations

import pytest
import trio

from session_proxy.lab.agent import AgentSettings
from session_proxy.lab.documents import PORT_FORWARDING
from session_proxy.lab.faults import Faults
from session_proxy.lab.listening import free_port
from session_proxy.lab.pace import CATCH_UP, FRAME_TIME
from session_proxy.lab.targets import echo_stream
from session_proxy.protocol.ssm_frames import Flag, PayloadType
from tests.support.lab import open_gateway, open_port, start
from tests.support.ssm_client import PlainClient

OLD = "1.1.69.0"


async def greet_and_close(stream: trio.SocketStream) -> None:
    await stream.send_all(b"SSH-2.0-lab\r\n")


async def test_the_end_of_the_connection_ends_the_session_after_its_last_bytes() -> None:
    with trio.fail_after(10):
        async with open_port(greet_and_close) as port, open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                assert await client.wait_closed() == ""

    assert client.data == b"SSH-2.0-lab\r\n"
    assert client.flags == []


async def test_data_are_cut_into_frames_of_the_agents_size() -> None:
    with trio.fail_after(10):
        async with (
            open_port(echo_stream) as port,
            open_gateway(settings=AgentSettings(payload=1000)) as gateway,
        ):
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                await client.wait_complete()
                await client.send(bytes(20_000))
                await client.wait_until(lambda: len(client.data) == 20_000)

    sizes = {len(frame.payload) for frame in client.frames if frame.payload_type == PayloadType.OUTPUT}
    assert max(sizes) == 1000


async def test_the_pace_is_that_of_aws_s_agent() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway(settings=AgentSettings(pace=True)) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                await client.wait_complete()
                began = trio.current_time()
                await client.send(bytes(50 * 1024))
                await client.wait_until(lambda: len(client.data) == 50 * 1024)
                took = trio.current_time() - began

    assert took >= 49 * FRAME_TIME - CATCH_UP


@pytest.mark.parametrize("fails", [True, False])
async def test_without_an_sshd_there_is_silence_and_then_the_end(fails: bool) -> None:
    """Data are refused all the while: the reference's worker has died."""
    faults = Faults(crash_notice=0.3, connect_fails=fails)
    with trio.fail_after(10):
        async with open_gateway(faults) as gateway:
            client = PlainClient()
            import random

            async with client.connect(start(gateway, free_port(random.Random()))):
                await client.wait_complete()
                began = trio.current_time()
                await client.send(b"SSH-2.0-client\r\n")
                reason = await client.wait_closed()

    assert reason.startswith("Unable to connect to specified port")
    assert trio.current_time() - began >= 0.2
    assert client.data == b""


async def test_data_wait_until_the_connection_is_up() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway(Faults(connect_delay=0.3)) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                await client.wait_complete()
                await client.send(b"early")
                await client.wait_for(b"early")


async def test_an_old_client_forwards_one_connection_after_another() -> None:
    connections = 0

    async def count(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await echo_stream(stream)

    with trio.fail_after(10):
        async with open_port(count) as port, open_gateway() as gateway:
            client = PlainClient(version=OLD)
            async with client.connect(start(gateway, port, PORT_FORWARDING)):
                await client.wait_complete()
                for word in (b"one", b"two"):
                    await client.send(word)
                    await client.wait_for(word)
                    await client.send_flag(Flag.DISCONNECT_TO_PORT)
                await client.send_flag(Flag.TERMINATE_SESSION)
                assert await client.wait_closed() == ""

    assert client.data == b"onetwo"
    assert connections == 2


async def test_an_old_client_is_told_when_its_port_is_dead() -> None:
    with trio.fail_after(10):
        async with open_gateway(Faults(connect_fails=True)) as gateway:
            client = PlainClient(version=OLD)
            async with client.connect(start(gateway, 9, PORT_FORWARDING)):
                await client.wait_closed()

    assert client.flags == [Flag.CONNECT_TO_PORT_ERROR]


async def test_a_reset_ends_the_session_as_an_eof_does() -> None:
    import socket

    async def reset(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with trio.fail_after(10):
        async with open_port(reset) as port, open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                assert await client.wait_closed() == ""
