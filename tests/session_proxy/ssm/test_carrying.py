from __future__ import annotations

import json
from collections import deque

import pytest
import trio
from trio.testing import MockClock

from session_proxy.lab.faults import Faults
from session_proxy.profile.model import DataChannel as Settings
from session_proxy.protocol.ssm_frames import Flag, PayloadType
from session_proxy.ssm import carrying
from session_proxy.ssm.carrying import (
    CONNECT_LIMIT,
    DEAD_AFTER,
    ENOUGH,
    GATHER,
    HANDSHAKE_LIMIT,
    PING_INTERVAL,
    Tempo,
    open_data_channel,
)
from session_proxy.ssm.data_channel import RECEIVE_LIMIT, DataChannel, Dialing
from session_proxy.ssm.errors import (
    AwsCredentialsError,
    AwsUnreachableError,
    DataChannelError,
    SessionEndedError,
)
from tests.support.ssm_service import SESSION, FakeService, open_service
from tunnel_relay.errors import WebSocketClosedError, WebSocketError, WebSocketRejectedError


def opened(service: FakeService, *, resume: float = 60.0, notify: list[str] | None = None):  # noqa: ANN201
    dialing = Dialing(notify=(notify if notify is not None else []).append)
    return open_data_channel(SESSION, service, Settings(resume=resume), dialing, hold=0.1)


async def receive(channel: DataChannel, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += await channel.receive_some()
    return found


async def test_bytes_go_both_ways_and_the_session_is_ended(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service:
        async with opened(service) as channel:
            service.send(b"SSH-2.0-them\r\n")
            await channel.send_all(b"SSH-2.0-us\r\n")
            assert await receive(channel, 14) == b"SSH-2.0-them\r\n"
        assert service.received == b"SSH-2.0-us\r\n"
        assert (
            service.frames[-1].payload_type == PayloadType.FLAG
            or service.frames[-2].payload_type == PayloadType.FLAG
        )
        # The agent ended it, so that AWS need not be asked to.
        assert service.terminated == []
        opening = json.loads(service.socket.texts[0])
        assert opening["TokenValue"] == "token-0"


async def test_what_the_agent_s_administrator_wants_to_say_reaches_the_user(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    said: list[str] = []
    faults = Faults(customer_message="be\x1b nice")
    async with open_service(monkeypatch, faults=faults) as service, opened(service, notify=said):
        pass
    assert said == ["be  nice"]


async def test_a_lost_websocket_is_a_pause(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service, opened(service) as channel:
        service.send(b"a" * 1000)
        assert await receive(channel, 1000)
        service.socket.break_off()
        await channel.send_all(b"sent while away" * 5000)
        service.send(b"b" * 1000)
        assert await receive(channel, 1000) == b"b" * 1000
        await service.wait_received(75000)
        assert service.received == b"sent while away" * 5000
        assert service.resumed == [SESSION.session_id]
        tokens = [json.loads(socket.texts[0])["TokenValue"] for socket in service.sockets]
        assert tokens == ["token-0", "token-1"]
        clients = {json.loads(socket.texts[0])["ClientId"] for socket in service.sockets}
        assert len(clients) == 1


async def test_while_it_is_resumed_the_session_is_away(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service, opened(service) as channel:
        assert channel.away == ""
        service.resume_error = AwsUnreachableError("no route to AWS")
        service.socket.break_off(WebSocketClosedError(1001, "bye"))
        await channel.wait_away_changed()
        assert channel.away.startswith("resuming the session: ")
        await channel.wait_away_changed()
        assert channel.away == "resuming the session: no route to AWS"
        service.resume_error = None
        service.answers.append(WebSocketError("refused"))
        await channel.wait_away_changed()
        assert channel.away == "resuming the session: refused"
        # Nothing is under way, so it is the pong that tells.
        await channel.wait_away_changed()
        assert channel.away == ""
        assert len(service.sockets) == 2


async def test_a_silent_websocket_is_dead_after_three_pings(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service, opened(service) as channel:
        await trio.sleep(100)
        assert service.pings in (4, 5)
        assert len(service.sockets) == 1
        service.socket.silent = True
        start = trio.current_time()
        await service.wait_sockets(2)
        assert trio.current_time() - start <= DEAD_AFTER + PING_INTERVAL
        service.send(b"on")
        assert await receive(channel, 2) == b"on"


async def test_a_stalled_consumer_is_not_taken_for_a_dead_peer(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service, opened(service) as channel:
        size = RECEIVE_LIMIT + 100_000
        for _ in range(0, size, 50_000):
            service.send(b"x" * 50_000)
        await trio.sleep(10 * DEAD_AFTER)
        assert not channel.has_room
        assert len(service.sockets) == 1
        assert len(await receive(channel, size)) >= size
        assert channel.has_room


async def test_a_session_that_cannot_be_resumed_in_time_fails_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch, resume_error=AwsUnreachableError("no route to AWS")) as service:
        async with opened(service, resume=20.0) as channel:
            start = trio.current_time()
            service.socket.break_off()
            with pytest.raises(DataChannelError, match="not be resumed within 20 s: no route to AWS"):
                await channel.receive_some()
            assert trio.current_time() - start == pytest.approx(20, abs=0.1)
            with pytest.raises(DataChannelError):
                await channel.send_all(b"x")
        assert 5 <= len(service.resumed) <= 15
        assert service.terminated == [SESSION.session_id]


@pytest.mark.parametrize("error", [SessionEndedError("it is over"), AwsCredentialsError("log in again")])
async def test_what_waiting_cannot_heal_fails_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, error: Exception
) -> None:
    async with open_service(monkeypatch, resume_error=error) as service, opened(service) as channel:
        start = trio.current_time()
        service.socket.break_off()
        with pytest.raises(type(error), match=str(error)):
            await channel.receive_some()
        assert trio.current_time() - start < 1


async def test_every_loss_has_a_budget_of_its_own(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The service closes WebSockets hourly."""
    async with open_service(monkeypatch) as service, opened(service, resume=5.0) as channel:
        for hour in range(1, 6):
            await trio.sleep(3600)
            service.socket.break_off(WebSocketClosedError(1001, "bye"))
            service.answers.extend([WebSocketError("not yet"), None])
            service.send(b"x")
            assert await receive(channel, 1) == b"x"
            assert len(service.resumed) == 2 * hour


async def test_a_token_that_is_not_taken_is_said_so(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    refusal = WebSocketClosedError(1003, "no token")
    async with open_service(monkeypatch, answers=deque([refusal] * 3)) as service:
        with pytest.raises(DataChannelError, match="did not take the token: no token"):
            async with opened(service):
                pass
        assert len(service.attempts) == 3
        assert service.terminated == [SESSION.session_id]
        assert service.resumed == []


async def test_a_refused_upgrade_names_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch, answers=deque([WebSocketRejectedError(403)] * 3)) as service:
        with pytest.raises(DataChannelError, match=r"403.*token has expired, or a proxy"):
            async with opened(service):
                pass


async def test_a_service_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch, hang=True) as service:
        start = trio.current_time()
        with pytest.raises(DataChannelError, match=r"no answer from the service within 15 s"):
            async with opened(service):
                pass
        assert trio.current_time() - start <= HANDSHAKE_LIMIT + 1
        assert len(service.attempts) == 2
    assert CONNECT_LIMIT < HANDSHAKE_LIMIT


async def test_an_agent_that_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch, faults=Faults(no_handshake=True)) as service:
        start = trio.current_time()
        # The agent itself ends the session after 15 s.
        with pytest.raises(DataChannelError, match="Handshake timed out"):
            async with opened(service):
                pass
        assert trio.current_time() - start <= HANDSHAKE_LIMIT


@pytest.mark.parametrize(
    ("faults", "named"),
    [(Faults(kms_action=True), "KMSEncryption"), (Faults(unknown_action=True), "Teleportation")],
)
async def test_what_a_port_session_cannot_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, faults: Faults, named: str
) -> None:
    async with open_service(monkeypatch, faults=faults) as service:
        with pytest.raises(DataChannelError, match=named):
            async with opened(service):
                pass


async def test_the_service_s_end_is_the_stream_s_after_what_came_before(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service:
        async with opened(service) as channel:
            service.send(b"last words")
            await trio.sleep(0.1)
            service.end_session()
            await trio.sleep(0.1)
            assert await channel.receive_some(4) == b"last"
            assert await channel.receive_some() == b" words"
            assert await channel.receive_some() == b""
            with pytest.raises(DataChannelError, match="session has ended"):
                await channel.send_all(b"x")
        assert service.terminated == []


async def test_the_service_s_reason_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service, opened(service) as channel:
        service.end_session("idle for too long")
        with pytest.raises(DataChannelError, match="AWS ended the session: idle for too long"):
            await channel.receive_some()


async def test_cancelled_it_still_says_goodbye(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A pool closes its links by cancelling them."""
    async with open_service(monkeypatch) as service:
        with trio.move_on_after(5) as scope:
            async with opened(service) as channel:
                await channel.send_all(b"x" * 50_000)
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline < 1
        flags = [frame.payload for frame in service.frames if frame.payload_type == PayloadType.FLAG]
        assert flags[-1] == Flag.TERMINATE_SESSION.to_payload()
        assert service.received == b"x" * 50_000


@pytest.mark.parametrize("after", [0.0, 0.0005, 0.01, 1.0])
async def test_cancelled_at_any_time_it_ends_the_session_within_its_limits(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, after: float
) -> None:
    async with open_service(monkeypatch) as service:
        service.hang = after == 1.0
        with trio.move_on_after(after):
            async with opened(service):
                await trio.sleep_forever()
        assert trio.current_time() < 10
        over = service.terminated or any(frame.payload_type == PayloadType.FLAG for frame in service.frames)
        assert over


async def test_a_peer_that_is_gone_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service:
        async with opened(service) as channel:
            service.socket.silent = True
            await channel.send_all(b"nobody hears")
            start = trio.current_time()
        assert trio.current_time() - start <= 3.1
        assert service.terminated == [SESSION.session_id]


async def test_senders_wait_while_too_much_is_queued(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_service(monkeypatch) as service, opened(service) as channel:
        service.socket.silent = True
        with trio.move_on_after(1) as scope:
            await channel.send_all(bytes(4_000_000))
        assert scope.cancelled_caught
        assert channel.channel.unsent <= 2 * 256 * 1024


# -- tempo


def test_a_download_is_gathered_and_a_conversation_is_not() -> None:
    tempo = Tempo()
    pauses = [tempo.pause([b"x" * 1144], 0, 0.001 * i) for i in range(100)]
    assert pauses[0] == 0
    assert pauses[-1] == GATHER
    assert tempo.pause([b"x" * 1144], 0, 10.0) == 0

    tempo = Tempo()
    assert not any(tempo.pause([b"x"], 1, 0.001 * i) for i in range(1000))


def test_large_reads_are_not_made_to_wait() -> None:
    tempo = Tempo()
    assert not any(tempo.pause([bytes(ENOUGH)], 0, 0.001 * i) for i in range(100))


def test_a_user_who_types_ends_the_gathering() -> None:
    tempo = Tempo()
    for i in range(40):
        tempo.pause([b"x"], 0, 0.001 * i)
    assert tempo.pause([b"x"], 6, 0.041) == 0


def test_the_module_dials_by_one_name() -> None:
    """The service in memory takes its place."""
    assert carrying.open_websocket.__module__ == "tunnel_relay.websocket"
