from __future__ import annotations

import socket
import threading
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs.asking import read_reply
from awg_obfs.background import open_background
from awg_obfs.destinations import Destinations
from awg_obfs.devices import make_device
from awg_obfs.errors import TunnelDialError
from awg_obfs.events import AssociationClosed, StreamClosed, StreamOutcome
from awg_obfs.idleness import IdleWatch
from awg_obfs.limits import Limits
from awg_obfs.lookup_turns import MOST_OF_CLIENT
from awg_obfs.protocol.datagram_wire import association_number, decode_body, decode_frame, encode_frames
from awg_obfs.protocol.keys import public_key_of
from awg_obfs.protocol.parameters import DEFAULT
from awg_obfs.protocol.tunnel_wire import (
    AssociateRequest,
    OpenRequest,
    Reply,
    ReplyCode,
    ResetCode,
    encode_address,
)
from awg_obfs.quic.driver import QuicConnection
from awg_obfs.quic.errors import ConnectionLostError, StreamResetError
from awg_obfs.quic.notes import Kind, Note
from awg_obfs.quic.stream import QuicStream
from awg_obfs.serving import LONGEST_TURN, Activity, ClientService, Services
from tests.support.quic_link import Weather, open_couple
from tests.support.tunnel_ends import receive_exactly
from tests.support.tunnels import (
    FORBIDDEN,
    LENIENT,
    Diary,
    eventually,
    open_destination,
    open_udp_echo,
    read_all,
)

SECONDS = 10
SUCCEEDED = Reply(ReplyCode.SUCCEEDED).encode()


@attrs.define(eq=False)
class Served:
    """A client's connection, and the service at its other end."""

    client: QuicConnection
    service: ClientService
    services: Services
    diary: Diary

    async def ask(self, request: bytes) -> tuple[QuicStream, Reply]:
        stream = self.client.open_stream()
        await stream.send_all(request)
        return stream, await read_reply(stream)


@asynccontextmanager
async def open_service(limits: Limits | None = None) -> AsyncGenerator[Served]:
    limits = limits or Limits()
    diary = Diary()
    services = Services(
        destinations=Destinations(LENIENT), limits=limits, idle=IdleWatch(limits.idle), on_event=diary.write
    )
    device = make_device(bytes(31) + b"\x40", DEFAULT, keepalive_padding=True)
    peer = device.add_peer(public_key_of(bytes(31) + b"\x41"), name="laptop")
    with trio.fail_after(SECONDS * 100):
        async with open_couple(weather=lambda: Weather(delay=0.0)) as couple, open_background() as nursery:
            service = ClientService(peer, couple.server, services)

            async def serve() -> None:
                with suppress(ConnectionLostError):
                    await service.run()

            nursery.start_soon(services.idle.run)
            nursery.start_soon(serve)
            yield Served(couple.client, service, services, diary)


def connect_to(port: int, host: str = "127.0.0.1") -> bytes:
    return OpenRequest(host, port).encode()


async def test_a_connection_is_opened_and_told_of() -> None:
    async with open_destination() as port, open_service() as served:
        stream, reply = await served.ask(connect_to(port, "localhost") + b"early")
        assert reply.code == ReplyCode.SUCCEEDED
        assert served.service.streams == served.services.activity.count == 1
        await stream.send_all(b" bytes")
        await stream.send_eof()
        assert await read_all(stream) == b"early bytes"
        (closed,) = await served.diary.wait_for(StreamClosed)
        assert (closed.peer.name, closed.host, closed.port) == ("laptop", "localhost", port)
        assert (closed.sent, closed.received, closed.outcome) == (11, 11, StreamOutcome.OK)
        assert closed.connect_duration is not None
        assert 0 < closed.connect_duration <= closed.duration
        assert served.service.streams == served.services.activity.count == 0


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_a_request_may_come_in_pieces(size: int) -> None:
    async with open_destination() as port, open_service() as served:
        stream = served.client.open_stream()
        request = connect_to(port, "localhost") + b"early"
        for start in range(0, len(request), size):
            await stream.send_all(request[start : start + size])
            await wait_all_tasks_blocked()
        assert await receive_exactly(stream, len(SUCCEEDED) + 5) == SUCCEEDED + b"early"


@pytest.fixture
def nobody() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "code", "outcome"),
    [
        ("127.0.0.1", ReplyCode.REFUSED, StreamOutcome.REFUSED),
        (FORBIDDEN, ReplyCode.NOT_ALLOWED, StreamOutcome.NOT_ALLOWED),
        ("no-such-host.invalid", ReplyCode.NO_SUCH_HOST, StreamOutcome.RESOLUTION),
    ],
)
async def test_why_a_destination_is_not_reached_is_said(
    host: str, code: ReplyCode, outcome: StreamOutcome, nobody: int
) -> None:
    async with open_service() as served:
        stream, reply = await served.ask(connect_to(nobody, host))
        assert reply.code == code
        assert reply.detail
        assert await stream.receive_some() == b""
        await stream.aclose()
        (closed,) = await served.diary.wait_for(StreamClosed)
        assert (closed.outcome, closed.connect_duration, closed.detail) == (outcome, None, reply.detail)
        await eventually(lambda: served.client.open_streams == 0)


async def hang(_self: Destinations, _host: str, _port: int) -> socket.socket:
    await trio.sleep_forever()
    raise AssertionError


async def test_a_destination_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(Destinations, "connect", hang)
    async with open_service(Limits(connect=7)) as served:
        _, reply = await served.ask(connect_to(80) + b"early")
        assert (reply.code, trio.current_time()) == (ReplyCode.TIMED_OUT, pytest.approx(7, abs=0.2))
        assert served.diary.told(StreamClosed)[0].outcome is StreamOutcome.TIMEOUT


async def test_a_client_that_gives_up_ends_the_attempt(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(Destinations, "connect", hang)
    async with open_service() as served:
        stream = served.client.open_stream()
        await stream.send_all(connect_to(80) + b"early")
        await trio.sleep(1)
        stream.reset(ResetCode.CANCELLED)
        (closed,) = await served.diary.wait_for(StreamClosed)
        assert trio.current_time() < 2
        assert closed.outcome is StreamOutcome.RESET
        assert served.service.streams == 0


@pytest.mark.parametrize(("leaves", "outcome"), [(False, StreamOutcome.TIMEOUT), (True, StreamOutcome.RESET)])
async def test_a_connection_that_comes_too_late_is_closed(
    leaves: bool, outcome: StreamOutcome, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    ours, theirs = socket.socketpair()

    async def connect(_self: Destinations, _host: str, _port: int) -> socket.socket:
        with trio.CancelScope(shield=True):
            await trio.sleep(8)
        return ours

    monkeypatch.setattr(Destinations, "connect", connect)
    with ours, theirs:
        async with open_service(Limits(connect=7)) as served:
            stream = served.client.open_stream()
            await stream.send_all(connect_to(80))
            if leaves:
                await trio.sleep(1)
                stream.reset(ResetCode.CANCELLED)
            (closed,) = await served.diary.wait_for(StreamClosed)
            assert closed.outcome is outcome
            assert ours.fileno() == -1


async def test_names_are_looked_up_at_the_turns_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another connection of the same client are no others."""
    asked, answered = threading.Semaphore(0), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        asked.release()
        answered.wait()
        raise socket.gaierror(socket.EAI_NONAME, "")

    async with open_service() as served:
        destinations = served.services.destinations

        async def look_up(client: Hashable) -> None:
            with suppress(TunnelDialError):
                await destinations.of_client(client).addresses("slow.example", 80)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        try:
            for _ in range(MOST_OF_CLIENT):
                stream = served.client.open_stream()
                await stream.send_all(connect_to(80, "slow.example"))
                await trio.to_thread.run_sync(asked.acquire)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look_up, served.service.peer)
                await wait_all_tasks_blocked()
                assert not asked.acquire(blocking=False)
                nursery.start_soon(look_up, "another")
                await trio.to_thread.run_sync(asked.acquire)
                answered.set()
        finally:
            answered.set()


async def test_there_are_so_many_connections_at_a_time() -> None:
    async with open_destination() as port, open_service(Limits(streams=2)) as served:
        first, _ = await served.ask(connect_to(port))
        await served.ask(connect_to(port))
        _, reply = await served.ask(connect_to(port))
        assert (reply.code, reply.detail) == (ReplyCode.LIMIT, "the server allows 2 connections at a time")
        await first.send_eof()
        await read_all(first)
        await served.diary.wait_for(StreamClosed, 2)
        _, reply = await served.ask(connect_to(port))
        assert reply.code == ReplyCode.SUCCEEDED


async def test_who_opens_too_fast_waits_a_little_and_is_then_told(virtual_time: MockClock) -> None:
    rate = 20
    async with open_destination() as port, open_service(Limits(opens=rate)) as served:
        codes: list[int] = []

        async def ask() -> None:
            codes.append((await served.ask(connect_to(port)))[1].code)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4 * rate):
                nursery.start_soon(ask)
        waited = trio.current_time() - began
        # One second's worth at once, as much again by and by.
        assert 2 * rate <= codes.count(ReplyCode.SUCCEEDED) <= 2 * rate + 3
        assert set(codes) == {ReplyCode.SUCCEEDED, ReplyCode.LIMIT}
        assert waited == pytest.approx(LONGEST_TURN, abs=0.1)


async def test_who_says_nothing_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_service(Limits(handshake=3)) as served:
        stream = served.client.open_stream()
        await stream.send_all(b"\1")
        with pytest.raises(StreamResetError) as caught:
            await stream.receive_some()
        assert caught.value.code == ResetCode.IDLE
        assert trio.current_time() == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize(
    "request_",
    [connect_to(80, FORBIDDEN), AssociateRequest().encode(), b"\1\x09"],
    ids=["TCP", "UDP", "nonsense"],
)
async def test_who_does_not_let_us_answer_is_not_waited_for(
    request_: bytes, autojump_clock: MockClock
) -> None:
    async with open_service(Limits(handshake=3)) as served:
        stream = served.client.open_stream()
        await stream.send_all(request_[:1])
        await trio.sleep(1)
        served.client._send_notes([Note(Kind.HOLD, stream.stream_id)])
        await trio.sleep(1)
        await stream.send_all(request_[1:])
        began = trio.current_time()
        with pytest.raises(StreamResetError) as caught:
            await stream.receive_some()
        assert caught.value.code == ResetCode.IDLE
        assert trio.current_time() - began == pytest.approx(3, abs=0.2)
        assert served.services.activity.count == 0


@pytest.mark.parametrize(
    ("request_", "words"), [(b"\2", "version 2"), (b"\1\x09", "command 9"), (b"\1\1\7", "address type 7")]
)
async def test_what_is_not_spoken_is_answered_in_words(request_: bytes, words: str) -> None:
    async with open_service() as served:
        stream, reply = await served.ask(request_)
        assert reply.code == ReplyCode.GENERAL_FAILURE
        assert words in reply.detail
        await stream.aclose()
        await eventually(lambda: served.client.open_streams == 0)


async def test_a_stream_may_end_within_its_request() -> None:
    async with open_service() as served:
        stream = served.client.open_stream()
        await stream.send_all(b"\1")
        await stream.send_eof()
        assert (await read_reply(stream)).code == ReplyCode.GENERAL_FAILURE
        gone = served.client.open_stream()
        await gone.send_all(b"\1")
        gone.reset(ResetCode.CANCELLED)
        await eventually(lambda: served.client.open_streams == 0)


async def test_an_idle_connection_is_ended(virtual_time: MockClock) -> None:
    async with open_destination() as port, open_service(Limits(idle=0.4)) as served:
        stream, _ = await served.ask(connect_to(port))
        for _ in range(4):
            await trio.sleep(0.2)
            await stream.send_all(b"busy")
            await receive_exactly(stream, 4)
        with pytest.raises(StreamResetError) as caught:
            await stream.receive_some()
        assert caught.value.code == ResetCode.IDLE
        assert (await served.diary.wait_for(StreamClosed))[0].outcome is StreamOutcome.IDLE


# -- UDP


async def associate(served: Served) -> tuple[QuicStream, int]:
    stream, reply = await served.ask(AssociateRequest().encode())
    assert reply.code == ReplyCode.SUCCEEDED
    return stream, association_number(stream.stream_id)


async def test_datagrams_go_there_and_come_back() -> None:
    async with open_udp_echo() as address, open_service() as served:
        stream, number = await associate(served)
        (frame,) = encode_frames(number, encode_address(*address), b"ping", 1000, 1)
        served.client.send_datagram(frame)
        held = decode_frame(await served.client.receive_datagram())
        assert held.association == number
        assert decode_body(held.body).payload == b"ping"
        # No association of this client.
        served.client.send_datagram(encode_frames(number + 1, encode_address(*address), b"", 1000, 1)[0])
        await stream.send_eof()
        (closed,) = await served.diary.wait_for(AssociationClosed)
        assert (closed.sent, closed.received, closed.dropped) == (1, 1, 0)
        assert await stream.receive_some() == b""
        await eventually(lambda: served.client.open_streams == 0)


async def test_there_are_so_many_associations_at_a_time() -> None:
    async with open_service(Limits(associations=1)) as served:
        stream, _ = await associate(served)
        _, reply = await served.ask(AssociateRequest().encode())
        assert reply.code == ReplyCode.LIMIT
        stream.reset(ResetCode.CANCELLED)
        await served.diary.wait_for(AssociationClosed)
        await associate(served)


async def ask_for_associations(served: Served, count: int) -> list[str]:
    """Ask for *count* associations at once; return what was said to those that were refused."""
    refused: list[str] = []

    async def ask() -> None:
        _, reply = await served.ask(AssociateRequest().encode())
        if reply.code != ReplyCode.SUCCEEDED:
            assert reply.code == ReplyCode.LIMIT
            refused.append(reply.detail)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ask)
    return refused


async def test_associations_are_opened_at_the_pace_of_connections(autojump_clock: MockClock) -> None:
    async with open_service(Limits(opens=2)) as served:
        began = trio.current_time()
        # One second's worth at once, as much again by and by.
        assert await ask_for_associations(served, 5) == ["the server allows 2 new connections a second"]
        assert trio.current_time() - began == pytest.approx(LONGEST_TURN, abs=0.2)


async def test_who_waits_for_its_turn_takes_no_place_beyond_the_last(autojump_clock: MockClock) -> None:
    async with open_service(Limits(opens=1, associations=1)) as served:
        assert await ask_for_associations(served, 2) == ["the server allows 1 UDP associations at a time"]


async def test_an_idle_association_is_ended(virtual_time: MockClock) -> None:
    async with open_service(Limits(idle=30)) as served:
        stream, _ = await associate(served)
        began = trio.current_time()
        assert await stream.receive_some() == b""
        assert 30 <= trio.current_time() - began <= 61
        await served.diary.wait_for(AssociationClosed)


async def test_a_server_without_sockets_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(24, "too many open files")

    async with open_service() as served:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", fail)
            _, reply = await served.ask(AssociateRequest().encode())
        assert (reply.code, reply.detail) == (
            ReplyCode.GENERAL_FAILURE,
            "the server has no more file descriptors",
        )


# -- ends


async def test_nothing_new_is_opened_while_the_server_stops() -> None:
    async with open_destination() as port, open_service() as served:
        stream, _ = await served.ask(connect_to(port))
        served.services.draining.set()
        for request in (connect_to(port), AssociateRequest().encode()):
            _, reply = await served.ask(request)
            assert (reply.code, reply.detail) == (ReplyCode.GENERAL_FAILURE, "the server is stopping")
        await stream.send_all(b"goes on")
        assert await receive_exactly(stream, 7) == b"goes on"
        served.client.close()
        await served.diary.wait_for(StreamClosed, 2)
        assert served.diary.told(StreamClosed)[1].outcome is StreamOutcome.DRAINED


async def test_a_lost_connection_takes_everything_with_it() -> None:
    async with open_destination() as port, open_service() as served:
        await served.ask(connect_to(port))
        await associate(served)
        served.client.close()
        (closed,) = await served.diary.wait_for(StreamClosed)
        await served.diary.wait_for(AssociationClosed)
        assert closed.outcome is StreamOutcome.RESET
        assert served.service.streams == 0


async def test_activity_tells_when_there_is_none() -> None:
    activity = Activity()
    await activity.wait_none()
    activity.begin()
    activity.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(activity.wait_none)
        activity.end()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        activity.end()
