from __future__ import annotations

import trio
import trio.testing

from tests.support.ssh_peer import SshPeer, open_pair
from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.ssh.settings import SshSettings

SETTINGS = SshSettings(keepalive_interval=15, keepalive_timeout=30)


async def answer(peer: SshPeer) -> None:
    while True:
        try:
            message = await peer.message()
        except trio.EndOfChannel:
            return
        if message[0] == number.GLOBAL_REQUEST:
            await peer.send(bytes([number.REQUEST_FAILURE]))


async def test_a_silent_peer_is_asked_and_then_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair(settings=SETTINGS) as (session, _):
        started = trio.current_time()
        await session.wait_closed()
        assert 44 <= trio.current_time() - started <= 46
        assert isinstance(session.close_reason, SshDisconnectedError)
        assert "silent for 45 seconds" in str(session.close_reason)


async def test_a_peer_that_answers_lives(autojump_clock: trio.testing.MockClock) -> None:
    async with open_pair(settings=SETTINGS) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(answer, peer)
        await trio.sleep(3000)
        assert session.close_reason is None
        nursery.cancel_scope.cancel()


async def test_any_byte_is_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    """An answer may be behind a lot of data."""
    async with open_pair(settings=SETTINGS) as (session, peer):
        for _ in range(20):
            await trio.sleep(20)
            await peer.send(bytes([number.IGNORE]) + bytes(4))
        assert session.close_reason is None


async def test_a_key_exchange_that_does_not_end_ends_the_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_pair(settings=SETTINGS) as (session, peer):
        await peer.exchange_keys()
        for _ in range(10):
            await trio.sleep(10)
            if session.close_reason is not None:
                break
            await peer.send(bytes([number.IGNORE]) + bytes(4))
        assert "key exchange" in str(session.close_reason)


async def test_keys_are_exchanged_when_they_are_old(autojump_clock: trio.testing.MockClock) -> None:
    settings = SshSettings(keepalive_interval=15, rekey_seconds=100)
    async with open_pair(settings=settings) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(answer, peer)
        await trio.sleep(350)
        assert session.key_exchanges == 4
        assert session.close_reason is None
        nursery.cancel_scope.cancel()
