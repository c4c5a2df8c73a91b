"""Streams as their users see them, in virtual time; that they outlive links, test_sessions shows."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.support.live_sessions import open_couple
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.relay_stream import RelayStream, StreamRefusedError, StreamResetError


async def test_a_stream_is_what_trio_calls_one(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:

        async def pair() -> tuple[RelayStream, RelayStream]:
            return await couple.stream()

        async def clogged() -> tuple[RelayStream, RelayStream]:
            near, far = await couple.stream()
            for end in (near, far):
                with trio.move_on_after(1):
                    while True:
                        await end.send_all(bytes(10_000))
            return near, far

        await trio.testing.check_half_closeable_stream(pair, clogged)


async def test_a_refusal_reaches_who_asked(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:
        near = couple.client.open_stream(b"telnet")
        far, _ = await couple.incoming.receive()
        far.refuse(Reason.NO_SUCH_SERVICE, "there is ssh")
        with pytest.raises(StreamRefusedError, match="there is ssh"):
            await near.wait_accepted()


async def test_both_ends_of_a_stream_that_is_reset_hear_why(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:
        near, far = await couple.stream()
        far.reset(Reason.BROKEN, "the service crashed")
        with pytest.raises(StreamResetError, match="the service crashed") as caught:
            await near.receive_some()
        assert caught.value.reason is Reason.BROKEN
        with pytest.raises(StreamResetError, match="the service crashed"):
            await near.send_all(b"x")


async def test_a_reason_without_words_is_told_by_its_name() -> None:
    assert str(StreamRefusedError(Reason.TIMED_OUT, "")) == "timed out"
    assert str(StreamResetError(Reason.SESSION_LOST, "")) == "session lost"
