from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from awg_obfs.asking import ask, dial_error_of, read_reply
from awg_obfs.errors import DialFault, TunnelDialError, WireError
from awg_obfs.protocol.tunnel_wire import CODES, OpenRequest, Reply, ReplyCode, ResetCode
from awg_obfs.quic.errors import ConnectionLostError, StreamResetError
from tests.support.quic_link import Couple, open_couple
from tests.support.tunnel_ends import open_stream_pair, receive_exactly

REQUEST = OpenRequest("web.internal", 80).encode()


async def answer(couple: Couple, *pieces: bytes, end: bool = False) -> None:
    """Be a server that says *pieces* to the next request, one by one."""
    stream = await couple.server.accept_stream()
    assert await receive_exactly(stream, len(REQUEST)) == REQUEST
    for piece in pieces:
        await stream.send_all(piece)
        await trio.sleep(0.1)
    if end:
        await stream.send_eof()


async def test_what_follows_the_reply_is_left_for_who_asked(autojump_clock: MockClock) -> None:
    reply = Reply(ReplyCode.SUCCEEDED, "welcome").encode()
    async with open_couple() as couple, trio.open_nursery() as nursery:
        nursery.start_soon(answer, couple, reply + b"banner")
        stream = await ask(couple.client, REQUEST)
        assert await stream.receive_some() == b"banner"


async def test_a_reply_may_come_byte_by_byte(autojump_clock: MockClock) -> None:
    reply = Reply(ReplyCode.REFUSED, "no").encode()
    pieces = [bytes((byte,)) for byte in reply]
    async with open_couple() as couple, trio.open_nursery() as nursery:
        nursery.start_soon(partial(answer, couple, *pieces))
        with pytest.raises(TunnelDialError, match="no") as caught:
            await ask(couple.client, REQUEST)
        assert caught.value.fault is DialFault.REFUSED
        # The server has an answer for us, and so nothing for the destination.
        assert not caught.value.uncertain


@pytest.mark.parametrize("fault", DialFault)
def test_every_fault_comes_through(fault: DialFault) -> None:
    """With the server's words, or, where it has none, with ours."""
    assert dial_error_of(Reply(CODES[fault], "its words")).fault is fault
    assert str(dial_error_of(Reply(CODES[fault], "its words"))) == "its words"
    assert str(dial_error_of(Reply(CODES[fault])))


def test_an_unknown_code_is_the_servers_own_trouble() -> None:
    assert dial_error_of(Reply(200)).fault is DialFault.DOWN
    assert dial_error_of(Reply(ReplyCode.UNKNOWN_COMMAND)).fault is DialFault.DOWN


async def test_a_server_that_ends_the_stream_early_is_at_fault(autojump_clock: MockClock) -> None:
    async with open_couple() as couple, trio.open_nursery() as nursery:
        nursery.start_soon(partial(answer, couple, b"\0", end=True))
        with pytest.raises(TunnelDialError, match="within its reply") as caught:
            await ask(couple.client, REQUEST)
        assert caught.value.fault is DialFault.DOWN
        assert caught.value.uncertain


async def test_a_server_that_resets_the_stream_gave_up(autojump_clock: MockClock) -> None:
    async def reset() -> None:
        (await couple.server.accept_stream()).reset(ResetCode.STOPPING)

    async with open_couple() as couple, trio.open_nursery() as nursery:
        nursery.start_soon(reset)
        with pytest.raises(TunnelDialError, match="gave the request up") as caught:
            await ask(couple.client, REQUEST)
        assert caught.value.uncertain


async def test_a_connection_that_ends_is_the_callers_business(autojump_clock: MockClock) -> None:
    """It may ask another one."""

    async def close() -> None:
        await trio.sleep(1)
        couple.server.close()

    async with open_couple() as couple, trio.open_nursery() as nursery:
        nursery.start_soon(close)
        with pytest.raises(ConnectionLostError):
            await ask(couple.client, REQUEST)


async def test_giving_up_tells_the_server(autojump_clock: MockClock) -> None:
    async with open_couple() as couple:
        with trio.move_on_after(1):
            await ask(couple.client, REQUEST)
        stream = await couple.server.accept_stream()
        with pytest.raises(StreamResetError) as caught:
            await receive_exactly(stream, len(REQUEST) + 1)
        assert caught.value.code == ResetCode.CANCELLED
        await trio.sleep(1)
        assert couple.client.open_streams == 0


async def test_no_reply_is_read_from_a_stream_that_is_over() -> None:
    async with open_stream_pair() as pair:
        await pair.server.send_eof()
        with pytest.raises(WireError):
            await read_reply(pair.client)
