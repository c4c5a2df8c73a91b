from __future__ import annotations

import contextlib
import os

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.ssh_peer import SshPeer, open_pair
from tunnel_relay.errors import ChannelRefusedError, SshDisconnectedError, SshError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import string, uint32
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.connection import MAX_PINGS
from tunnel_relay.ssh.session import SshSession
from tunnel_relay.ssh.settings import SshSettings


async def open_channel(
    session: SshSession, peer: SshPeer, *, window: int = 1 << 20, most: int = 32768
) -> SshChannel:
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            await peer.accept_channel(window=window, most=most)

        nursery.start_soon(accept)
        return await session.open_direct_tcpip("db.internal", 5432)
    raise AssertionError


async def test_an_open_asks_for_the_host_by_name() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.open_direct_tcpip, "db.internal", 5432)
        fields = await peer.expect(number.CHANNEL_OPEN)
        assert fields.string() == b"direct-tcpip"
        fields.take(4)
        assert fields.uint32() == SshSettings().window
        assert fields.uint32() == SshSettings().packet
        assert (fields.string(), fields.uint32()) == (b"db.internal", 5432)
        nursery.cancel_scope.cancel()


async def test_a_refusal_is_cleaned_for_a_terminal() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:

        async def refuse() -> None:
            fields = await peer.expect(number.CHANNEL_OPEN)
            fields.string()
            reason = uint32(fields.uint32()) + uint32(2) + string(b"no\x1b[2J\nway") + string(b"")
            await peer.send(bytes([number.CHANNEL_OPEN_FAILURE]), reason)

        nursery.start_soon(refuse)
        with pytest.raises(ChannelRefusedError) as caught:
            await session.open_direct_tcpip("h", 1)
        assert (caught.value.code, caught.value.description) == (2, "no [2J way")
        assert session.channels == 0


async def test_channels_take_turns() -> None:
    """A small piece waits for one message of each of the others, not for all they have."""
    async with open_pair() as (session, peer):
        bulk = [await open_channel(session, peer, window=1 << 30) for _ in range(3)]
        small = await open_channel(session, peer, window=1 << 30)
        async with trio.open_nursery() as nursery:
            for channel in bulk:
                nursery.start_soon(channel.send_all, bytes(4 << 20))
            nursery.start_soon(small.send_all, b"keystroke")
            before = 0
            while True:
                message = await peer.message()
                if message[5:9] == uint32(9):
                    break
                before += len(message)
            assert before < 2 << 20
            nursery.cancel_scope.cancel()


async def test_a_server_cannot_open_channels_or_make_requests() -> None:
    async with open_pair() as (session, peer):
        await peer.send(bytes([number.CHANNEL_OPEN]), string(b"x11") + uint32(9) + uint32(1) + uint32(1))
        fields = await peer.expect(number.CHANNEL_OPEN_FAILURE)
        assert (fields.uint32(), fields.uint32()) == (9, 1)
        await peer.send(bytes([number.GLOBAL_REQUEST]), string(b"hostkeys-00@openssh.com"), b"\0")
        await peer.send(bytes([number.GLOBAL_REQUEST]), string(b"anything"), b"\1")
        await peer.expect(number.REQUEST_FAILURE)
        assert session.close_reason is None


async def test_pings_are_answered_in_order_and_are_bounded() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:
        for _ in range(MAX_PINGS + 10):
            nursery.start_soon(session.ping)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(MAX_PINGS):
            await peer.expect(number.GLOBAL_REQUEST)
            await peer.send(bytes([number.REQUEST_FAILURE]))


DATA = bytes([number.CHANNEL_DATA])


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (DATA + uint32(77) + string(b"x"), "does not exist"),
        (DATA + uint32(0) + uint32(100) + b"x", "malformed"),
        (DATA + uint32(0), "malformed"),
        (DATA + uint32(0) + string(bytes(1001)), "window"),
        (bytes([number.CHANNEL_EXTENDED_DATA]) + uint32(0) + uint32(1) + string(bytes(1001)), "window"),
        (bytes([number.CHANNEL_WINDOW_ADJUST]) + uint32(0) + uint32(2**32 - 1), "wider"),
        (bytes([number.CHANNEL_WINDOW_ADJUST]) + uint32(0), "malformed"),
        (bytes([number.CHANNEL_OPEN_CONFIRMATION]) + uint32(0) * 4, "twice"),
        (bytes([number.CHANNEL_OPEN_FAILURE]) + uint32(0) * 4, "had opened"),
        (bytes([number.CHANNEL_EOF]) + uint32(5), "does not exist"),
        (bytes([number.CHANNEL_CLOSE]) + uint32(5), "does not exist"),
        (bytes([number.REQUEST_SUCCESS]), "nobody made"),
    ],
)
async def test_a_breach_of_the_protocol_ends_the_session_with_a_reason(message: bytes, error: str) -> None:
    async with open_pair(settings=SshSettings(window=1000)) as (session, peer):
        channel = await open_channel(session, peer)
        await peer.send(message)
        await session.wait_closed()
        assert isinstance(session.close_reason, SshDisconnectedError)
        assert error in str(session.close_reason)
        with pytest.raises(trio.BrokenResourceError):
            await channel.receive_some()


async def test_an_answer_before_the_question_is_a_breach() -> None:
    async with open_pair() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(_expect_disconnect, session)
        await peer.expect(number.CHANNEL_OPEN)
        await peer.send(DATA + uint32(0) + string(b"early"))
        await session.wait_closed()


async def _expect_disconnect(session: SshSession) -> None:
    with pytest.raises(SshDisconnectedError, match="not open"):
        await session.open_direct_tcpip("h", 1)


async def test_extended_data_and_channel_requests_are_passed_over() -> None:
    async with open_pair() as (session, peer):
        channel = await open_channel(session, peer)
        await peer.send(bytes([number.CHANNEL_EXTENDED_DATA]) + uint32(0) + uint32(1) + string(b"stderr"))
        await peer.send(
            bytes([number.CHANNEL_REQUEST]) + uint32(0) + string(b"exit-status") + b"\0" + uint32(0)
        )
        await peer.send(bytes([number.CHANNEL_REQUEST]) + uint32(0) + string(b"what") + b"\1")
        await peer.expect(number.CHANNEL_FAILURE)
        await peer.send_data(0, b"data")
        assert await channel.receive_some() == b"data"


async def test_a_number_is_used_again_only_when_it_is_free() -> None:
    async with open_pair() as (session, peer):
        first = await open_channel(session, peer)
        second = await open_channel(session, peer)
        assert (first.number, second.number) == (0, 1)
        await first.aclose()
        await peer.expect(number.CHANNEL_EOF)
        await peer.expect(number.CHANNEL_CLOSE)
        assert (await open_channel(session, peer)).number == 2
        await peer.send(bytes([number.CHANNEL_CLOSE]) + uint32(0))
        await trio.testing.wait_all_tasks_blocked()
        session._connection._next_number = 0
        assert (await open_channel(session, peer)).number == 0


async def test_a_channel_counts_until_it_is_closed_here() -> None:
    """What only waits for the server's farewell is no load: a pool places streams by this number."""
    async with open_pair() as (session, peer):
        first = await open_channel(session, peer)
        await open_channel(session, peer)
        assert session.channels == 2
        await first.aclose()
        assert session.channels == 1
        assert session.statistics().channels == 1
        with trio.move_on_after(0):
            await session.open_direct_tcpip("h", 1)
        assert session.channels == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(80, 110), st.binary(max_size=40))
def test_fuzzed_messages_never_raise_anything_but_ssh_errors(kind: int, noise: bytes) -> None:
    async def main() -> None:
        with contextlib.suppress(SshError):
            async with open_pair() as (session, peer):
                channel = await open_channel(session, peer)
                await peer.send(bytes([kind]) + uint32(0) + noise)
                await peer.send(bytes([kind]) + noise)
                await trio.testing.wait_all_tasks_blocked()
                await channel.aclose()
                assert session.close_reason is None or isinstance(session.close_reason, SshError)

    trio.run(main)


async def test_data_arrive_in_order_across_key_exchanges() -> None:
    data = os.urandom(1_000_000)
    async with open_pair(settings=SshSettings(rekey_bytes=50_000)) as (session, peer):
        channel = await open_channel(session, peer, window=1 << 20)
        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send_all, data)
            while len(received) < len(data):
                message = await peer.message()
                assert message[0] == number.CHANNEL_DATA
                received += message[9:]
        assert received == data
        assert session.key_exchanges > 3
