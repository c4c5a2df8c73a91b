"""Streams of a connection as Trio streams, whichever engine runs it."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from awg_obfs.quic.errors import StreamResetError
from awg_obfs.quic.settings import EngineKind, QuicSettings
from awg_obfs.quic.stream import QuicStream
from tests.support.quic_link import ENGINES, PAIRS, Pair, Weather, open_couple
from tests.support.quic_streams import send_until_refused


@pytest.mark.parametrize("engines", PAIRS)
async def test_what_is_closed_early_ends_at_both_sides(autojump_clock: MockClock, engines: Pair) -> None:
    """The client closes at once, the server ends or goes on later: neither keeps the stream, and more can be opened."""
    async with open_couple(engines) as couple:
        for end in (QuicStream.send_eof, QuicStream.aclose, send_until_refused):
            stream = couple.client.open_stream()
            await stream.send_all(b"hello")
            await stream.aclose()
            accepted = await couple.server.accept_stream()
            await trio.sleep(0.5)
            with suppress(StreamResetError):
                await end(accepted)
            await accepted.aclose()
            await trio.sleep(0.5)
            assert couple.client.open_streams == 0
            assert couple.server.open_streams == 0


@pytest.mark.parametrize("engines", PAIRS)
@pytest.mark.parametrize("lost", range(1, 4))
async def test_an_end_that_gets_lost_arrives_in_the_end(
    autojump_clock: MockClock, engines: Pair, lost: int
) -> None:
    """The end travels alone, behind data that is not acknowledged yet; *lost* datagrams from then on get lost."""
    async with open_couple(engines, weather=lambda: Weather(delay=0.02)) as couple:
        stream = couple.client.open_stream()
        await stream.send_all(b"first")
        accepted = await couple.server.accept_stream()
        assert await accepted.receive_some() == b"first"
        await trio.sleep(1)
        await stream.send_all(b"last")
        await trio.sleep(0.005)
        couple.up.lose_next(lost)
        await stream.send_eof()
        assert await accepted.receive_some() == b"last"
        with trio.fail_after(5):
            assert await accepted.receive_some() == b""
        await accepted.send_eof()
        assert await stream.receive_some() == b""
        await trio.sleep(10)
        assert (couple.client.open_streams, couple.server.open_streams) == (0, 0)


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_idle_reader_bounds_what_is_sent(autojump_clock: MockClock, engine: EngineKind) -> None:
    """Nobody reads: the sender is stopped, the receiver holds no more than its windows, other streams go on."""
    settings = QuicSettings(stream_window=1 << 20, connection_window=8 << 20, send_buffer=1 << 17)
    async with open_couple((engine, engine), settings=settings) as couple:
        stream = couple.client.open_stream()
        sent = 0
        with trio.move_on_after(20):
            while True:
                await stream.send_all(bytes(1 << 16))
                sent += 1 << 16
        accepted = await couple.server.accept_stream()
        # What waits for the reader, what waits to be sent, and what was on its way when the reader fell behind.
        assert accepted.buffered <= 4 << 20
        assert sent <= accepted.buffered + (3 << 16) + settings.send_buffer

        other = couple.client.open_stream()
        await other.send_all(b"not held up")
        assert await (await couple.server.accept_stream()).receive_some() == b"not held up"

        received = 0
        with trio.move_on_after(20):
            while True:
                received += len(await accepted.receive_some())
        assert received >= sent
        # The cancelled send_all may have sent more.
        with trio.fail_after(5):
            await stream.send_all(b"goes on")
            assert (await accepted.receive_some()).endswith(b"goes on")


@pytest.mark.parametrize("engine", ENGINES)
async def test_resets_carry_their_code(autojump_clock: MockClock, engine: EngineKind) -> None:
    """Each direction that was given up says so, with the code."""
    async with open_couple((engine, engine)) as couple:
        stream = couple.client.open_stream()
        await stream.send_all(b"before")
        accepted = await couple.server.accept_stream()
        assert await accepted.receive_some() == b"before"
        stream.reset(7)
        with pytest.raises(StreamResetError) as reset:
            await accepted.receive_some()
        assert reset.value.code == 7
        with pytest.raises(StreamResetError) as stopped:
            await send_until_refused(accepted)
        assert stopped.value.code == 7
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


@pytest.mark.parametrize("engine", ENGINES)
async def test_streams_may_be_written_before_the_handshake_is_over(
    autojump_clock: MockClock, engine: EngineKind
) -> None:
    """What is written early leaves as soon as it may."""
    async with open_couple((engine, engine), ready=False) as couple:
        stream = couple.client.open_stream()
        await stream.send_all(b"early")
        accepted = await couple.server.accept_stream()
        assert await accepted.receive_some() == b"early"


@pytest.mark.parametrize("engines", PAIRS)
async def test_a_stream_is_what_trio_calls_one(autojump_clock: MockClock, engines: Pair) -> None:
    """Trio's own checks: half-close, conflicts, cancellation, closing at any moment, from both ends."""
    settings = QuicSettings(stream_window=1 << 16, connection_window=1 << 20, send_buffer=1 << 14)
    async with open_couple(engines, settings=settings, weather=lambda: Weather(delay=0.001)) as couple:

        async def make() -> tuple[QuicStream, QuicStream]:
            stream = couple.client.open_stream()
            await stream.send_all(b"!")
            accepted = await couple.server.accept_stream()
            await accepted.receive_some()
            return stream, accepted

        async def make_clogged() -> tuple[QuicStream, QuicStream]:
            pair = await make()
            for stream in pair:
                with trio.move_on_after(5):
                    while True:
                        await stream.send_all(bytes(1 << 14))
            return pair

        await trio.testing.check_half_closeable_stream(make, make_clogged)
