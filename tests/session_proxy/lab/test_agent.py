from __future__ import annotations

import itertools
import math
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from typing import cast

import attrs
import pytest
import trio
import trio.testing

from session_proxy.lab import agent
from session_proxy.lab.agent import AgentSession, AgentSettings
from session_proxy.lab.agent_channel import DataReceived
from session_proxy.lab.client_link import ClientLink
from session_proxy.lab.documents import SSH, PortSession
from session_proxy.lab.faults import Faults
from session_proxy.lab.handshake import ClientAbilities
from session_proxy.protocol.ssm_channel import Channel
from session_proxy.protocol.ssm_channel import DataReceived as Arrived
from session_proxy.protocol.ssm_frames import Flag
from tests.support.lab import open_gateway, start
from tests.support.ssm_client import PlainClient


@pytest.mark.parametrize(
    ("settings", "payload"),
    [
        (AgentSettings(), 65536),
        (AgentSettings(pace=True), 1024),
        (AgentSettings(pace=True, payload=5000), 5000),
    ],
)
def test_the_pace_decides_the_size_of_frames(settings: AgentSettings, payload: int) -> None:
    assert settings.frame_payload == payload


async def test_the_first_reason_stands_and_ends_the_session(autojump_clock: trio.testing.MockClock) -> None:
    async def never(session: AgentSession, client: ClientAbilities) -> None:
        raise AssertionError

    session = AgentSession("s", "i", PortSession(SSH, None, 22), AgentSettings(), Faults())
    session.end("first")
    session.end("second")

    assert await session.run(never) == "first"
    assert autojump_clock.current_time() >= 0


async def test_a_handshake_that_nobody_answers_ends_the_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def never(session: AgentSession, client: ClientAbilities) -> None:
        raise AssertionError

    session = AgentSession("s", "i", PortSession(SSH, None, 22), AgentSettings(), Faults())
    began = trio.current_time()
    reason = await session.run(never)

    assert reason.startswith("Handshake timed out.")
    assert trio.current_time() - began == pytest.approx(15.0, abs=0.1)
    del autojump_clock


async def test_a_client_that_does_not_agree_is_told_why() -> None:
    with trio.fail_after(10):
        async with open_gateway() as gateway:
            client = PlainClient(status=2)
            async with client.connect(start(gateway, 9)):
                reason = await client.wait_closed()

    assert reason == "SessionType failed on client with status 2 error: "


@pytest.mark.parametrize("fault", ["kms_action", "unknown_action"])
async def test_actions_that_are_unsupported_end_the_session_as_at_awss_agent(fault: str) -> None:
    faults = Faults()
    setattr(faults, fault, True)
    with trio.fail_after(10):
        async with open_gateway(faults) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, 9)):
                assert "failed on client with status 3" in await client.wait_closed()


async def test_a_customer_message_comes_with_the_end_of_the_handshake() -> None:
    with trio.fail_after(10):
        async with open_gateway(Faults(customer_message="Welcome.")) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, 9)):
                await client.wait_complete()

    assert client.complete is not None
    assert client.complete["CustomerMessage"] == "Welcome."


async def test_a_port_that_does_not_read_makes_the_agent_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it refused comes again when there is room, and nothing is lost."""
    monkeypatch.setattr(agent, "MAX_WAITING", 10_000)
    delivered: list[bytes] = []
    go_on = trio.Event()

    async def slow(session: AgentSession, client: ClientAbilities) -> None:
        session.accept_data()
        await go_on.wait()
        while True:
            event = await session.next_received()
            assert isinstance(event, DataReceived)
            delivered.append(event.payload)
            session.delivered(event)

    monkeypatch.setattr("session_proxy.lab.gateway.drive_port", slow)
    with trio.fail_after(10):
        async with open_gateway() as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, 9)):
                await client.wait_complete()
                for number in range(30):
                    await client.send(bytes([number]) * 1000)
                # Frames ahead of a refused one are kept, and acknowledged: the others wait.
                go_on.set()
                await client.wait_acknowledged()

    assert b"".join(delivered) == b"".join(bytes([number]) * 1000 for number in range(30))


async def test_a_client_that_does_not_acknowledge_stops_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "MAX_UNACKNOWLEDGED", 5_000)
    handed_over = 0

    async def flood(session: AgentSession, client: ClientAbilities) -> None:
        nonlocal handed_over
        session.send_flag(Flag.CONNECT_TO_PORT_ERROR)
        while True:
            await session.send(b"x" * 1000)
            handed_over += 1

    monkeypatch.setattr("session_proxy.lab.gateway.drive_port", flood)
    faults = Faults()
    with trio.fail_after(10):
        async with open_gateway(faults) as gateway:
            client = PlainClient()
            async with client.connect(start(gateway, 9)):
                await client.wait_complete()
                faults.drop_acks_to_agent = 1
                await client.wait_until(lambda: len(client.data) >= 3000)
                # It would never be blocked if it went on.
                await trio.testing.wait_all_tasks_blocked()
                assert handed_over < 50
                faults.drop_acks_to_agent = 0
                await client.wait_until(lambda: len(client.data) >= 50_000)

    assert client.flags == [Flag.CONNECT_TO_PORT_ERROR]


DELAY = 0.001


@attrs.define(eq=False)
class Way:
    """Messages on their way in one direction, for as long as DELAY."""

    _flying: deque[tuple[float, bytes]] = attrs.field(factory=deque[tuple[float, bytes]])
    _news: trio.Event = attrs.field(factory=trio.Event)
    backlog: int = 0

    def post(self, messages: Iterable[bytes]) -> bool:
        self._flying.extend((trio.current_time() + DELAY, message) for message in messages)
        self._news.set()
        return True

    async def receive(self, until: float) -> Sequence[bytes]:
        """Return what has arrived, waiting for it till *until*."""
        with trio.move_on_at(until):
            while not self._flying:
                self._news = trio.Event()
                await self._news.wait()
            await trio.sleep_until(self._flying[0][0])
        now = trio.current_time()
        arrived = itertools.takewhile(lambda flying: flying[0] <= now, list(self._flying))
        return [self._flying.popleft()[1] for _ in arrived]


async def test_a_download_that_loses_every_fiftieth_frame_stalls_for_no_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What our client cannot put into order, while a lost frame is missing, is not sent at all."""
    down, up = Way(), Way()
    size = 40_000_000
    arrivals: list[float] = []

    async def flood(session: AgentSession, client: ClientAbilities) -> None:
        session.accept_data()
        for _ in range(0, size, 50_000):
            await session.send(bytes(50_000))
        await trio.sleep_forever()

    async def receive_at_agent() -> None:
        while True:
            for message in await up.receive(math.inf):
                session.receive_message(message)

    async def download() -> None:
        channel = Channel(new_id=uuid.uuid4, epoch=1_700_000_000.0)
        received = 0
        while received < size:
            now = trio.current_time()
            up.post(channel.messages_to_send(now))
            for message in await down.receive(max(channel.next_timer(now), now + DELAY)):
                channel.receive_message(message, trio.current_time())
            while (event := channel.next_event()) is not None:
                if isinstance(event, Arrived):
                    received += len(event.data)
                    arrivals.append(trio.current_time())

    settings, faults = AgentSettings(payload=50_000), Faults(drop_output=50)
    session = AgentSession("sess-0123456789abcdef0", "i", PortSession(SSH, None, 22), settings, faults)
    session.attach(cast("ClientLink", down))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run, flood)
            nursery.start_soon(receive_at_agent)
            await download()
            nursery.cancel_scope.cancel()

    assert max(later - earlier for earlier, later in itertools.pairwise(arrivals)) < 1
    assert autojump_clock.current_time() >= arrivals[-1]
