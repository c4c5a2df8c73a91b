from __future__ import annotations

import math
from contextlib import suppress

import pytest
import trio
import trio.testing

from session_proxy.lab.agent import AgentSettings
from session_proxy.lab.control_api import Ticket, UnknownSessionError
from session_proxy.lab.faults import Faults, parse_faults
from session_proxy.lab.gateway import Gateway
from session_proxy.lab.targets import echo_stream
from session_proxy.protocol.ssm_frames import Flag, MessageType
from tests.support.lab import open_gateway, open_port, start
from tests.support.ssm_client import PlainClient
from tunnel_relay.errors import WebSocketClosedError
from tunnel_relay.websocket import open_websocket

AGENT = AgentSettings()
CONTENT = bytes(range(256)) * 2000


async def transfer(gateway: Gateway, client: PlainClient, ticket: Ticket) -> None:
    """Echo `CONTENT` through the session, coming back after every cut."""
    done = False
    sent = 0
    while not done:
        async with client.connect(ticket):
            try:
                await client.wait_complete()
                while sent < len(CONTENT):
                    await client.send(CONTENT[sent : sent + 4096])
                    sent += 4096
                await client.wait_until(lambda: len(client.data) >= len(CONTENT) or client.gone is not None)
                done = len(client.data) >= len(CONTENT)
            except WebSocketClosedError:
                sent += 4096  # that frame is kept by the client, and resent
        if not done:
            ticket = gateway.resume_session(ticket.session_id)
    assert client.data == CONTENT


async def test_a_session_carries_bytes_both_ways() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway() as gateway:
            client = PlainClient()
            ticket = start(gateway, port)
            async with client.connect(ticket):
                await client.wait_complete()
                await client.send(b"to and fro")
                await client.wait_for(b"to and fro")

            assert ticket.session_id in gateway.sessions
            assert "AgentVersion" in client.request
            assert client.complete is not None
            assert client.complete["CustomerMessage"] == ""


@pytest.mark.parametrize("token", ["", "wrong", "ünlike"])
async def test_a_wrong_token_is_refused_with_1003(token: str) -> None:
    with trio.fail_after(10):
        async with open_gateway() as gateway:
            ticket = start(gateway, 9)
            async with open_websocket(ticket.stream_url) as websocket:
                await websocket.send_text(f'{{"TokenValue": "{token}"}}')
                with pytest.raises(WebSocketClosedError) as closed:
                    await websocket.receive()

    assert closed.value.code == 1003
    assert closed.value.reason.startswith(f"Channel {ticket.session_id}: request to open data channel")


@pytest.mark.parametrize("first", ["not json", "[]", '{"TokenValue": 5}', b"\x00\x01"])
async def test_a_first_message_without_a_token_is_refused(first: str | bytes) -> None:
    with trio.fail_after(10):
        async with open_gateway() as gateway, open_websocket(start(gateway, 9).stream_url) as websocket:
            if isinstance(first, str):
                await websocket.send_text(first)
            else:
                await websocket.send_binary(first)
            with pytest.raises(WebSocketClosedError) as closed:
                await websocket.receive()

    assert closed.value.code == 1003


async def test_a_session_that_is_over_can_be_neither_opened_nor_resumed() -> None:
    with trio.fail_after(10):
        async with open_gateway() as gateway:
            ticket = start(gateway, 9)
            gateway.terminate_session(ticket.session_id)
            gateway.terminate_session("unknown")
            while gateway.sessions:
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(UnknownSessionError):
                gateway.resume_session(ticket.session_id)
            client = PlainClient()
            async with client.connect(ticket):
                assert (await client.wait_gone()).code == 1003


@pytest.mark.parametrize("closed_116", [False, True])
async def test_the_end_of_a_session_is_told_in_the_services_form(closed_116: bool) -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway(Faults(closed_116=closed_116)) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                await client.wait_complete()
                assert gateway.end_sessions("An administrator did it.") == 1
                assert await client.wait_closed() == "An administrator did it."

    (closing,) = (frame for frame in client.frames if frame.message_type == MessageType.CHANNEL_CLOSED)
    assert closing.header_length == (116 if closed_116 else 112)


async def test_the_client_can_end_a_session() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                await client.wait_complete()
                await client.send_flag(Flag.TERMINATE_SESSION)
                assert await client.wait_closed() == ""


@pytest.mark.parametrize(
    "switches",
    [
        "drop-output=7 drop-input=5",
        "duplicate-output=2 duplicate-input=3",
        "reorder-output=3 reorder-input=4",
        "drop-acks-to-agent=3 drop-acks-to-client=4",
        "wrong-digest=5 wrong-header=7",
        "refuse-input=3",
        "pause-first=on",
        "cut-after=40",
        "cut-after=60 cut-loses=3",
        "cut-after=40 cut-resets=on",
        "drop-output=20 resend-head-only=on",
    ],
)
async def test_data_survive(switches: str) -> None:
    faults = parse_faults(switches.split())
    with trio.fail_after(20):
        async with open_port(echo_stream) as port, open_gateway(faults) as gateway:
            client = PlainClient()
            await transfer(gateway, client, start(gateway, port))

    assert bool(client.malformed) == bool(faults.wrong_digest)


async def test_a_cut_leaves_the_session_to_be_resumed() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway() as gateway:
            client = PlainClient()
            ticket = start(gateway, port)
            async with client.connect(ticket):
                await client.wait_complete()
                await client.send(b"before")
                await client.wait_for(b"before")
                assert gateway.cut_websockets() == 1
                assert (await client.wait_gone()).code == 1006
            resumed = gateway.resume_session(ticket.session_id)
            assert resumed.token != ticket.token
            async with client.connect(resumed):
                await client.send(b"after")
                await client.wait_for(b"beforeafter")


async def test_an_old_websocket_is_closed_by_the_book() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway(Faults(close_after=0.1)) as gateway:
            client = PlainClient()
            ticket = start(gateway, port)
            async with client.connect(ticket):
                assert (await client.wait_gone()).code == 1001

            assert ticket.session_id in gateway.sessions


async def test_every_websocket_can_be_closed_at_once() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                await client.wait_complete()
                assert gateway.close_websockets() == 1
                assert (await client.wait_gone()).code == 1001


async def test_a_newer_client_takes_the_sessions_place() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway() as gateway:
            first = PlainClient()
            ticket = start(gateway, port)
            async with first.connect(ticket):
                await first.wait_complete()
                async with PlainClient().connect(ticket) as second:
                    assert (await first.wait_gone()).code == 1006
                    # The newer one stays.
                    await second.ping(b"still here?")


async def test_too_many_frames_a_second_cut_the_websocket() -> None:
    with trio.fail_after(10):
        async with open_port(echo_stream) as port, open_gateway(Faults(rate_limit=20)) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)):
                await client.wait_complete()
                with suppress(WebSocketClosedError):
                    for _ in range(100):
                        await client.send(b"x")
                await client.wait_gone()


async def test_silence_holds_everything_and_ends() -> None:
    with trio.fail_after(10):
        faults = Faults()
        async with open_port(echo_stream) as port, open_gateway(faults) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, port)) as websocket:
                await client.wait_complete()
                faults.silent = True
                with trio.move_on_after(0.3) as waiting:
                    await websocket.ping(b"x")
                assert waiting.cancelled_caught
                faults.silent = False
                await websocket.ping(b"y")


async def test_a_session_that_nobody_wants_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with Gateway.open(AGENT, Faults()) as gateway:
        ticket = start(gateway, 9)
        await trio.sleep(30 * 60)
        assert ticket.session_id not in gateway.sessions
    assert autojump_clock.autojump_threshold < math.inf


async def test_a_client_that_comes_back_in_time_gets_the_last_bytes() -> None:
    async def speak(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        gateway.cut_websockets()
        await gone.wait()
        await stream.send_all(b"famous last words")
        spoken.set()

    gone, spoken = trio.Event(), trio.Event()
    with trio.fail_after(10):
        async with open_port(speak) as port, open_gateway() as gateway:
            client = PlainClient()
            ticket = start(gateway, port)
            async with client.connect(ticket):
                await client.wait_complete()
                await client.send(b"speak")
                await client.wait_gone()
            gone.set()
            await spoken.wait()
            # And has hung up.
            await trio.testing.wait_all_tasks_blocked()
            async with client.connect(gateway.resume_session(ticket.session_id)):
                assert await client.wait_closed() == ""

    assert client.data == b"famous last words"
