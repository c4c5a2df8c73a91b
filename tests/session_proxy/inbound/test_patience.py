from __future__ import annotations

import pytest
import trio
import trio.testing

from session_proxy.inbound.patience import Patience
from session_proxy.outbound.socket_stream import PlainSocketStream
from tests.support.sockets import stream_pair


async def test_who_is_late_reads_an_end_of_file(autojump_clock: trio.testing.MockClock) -> None:
    patience = Patience(10)
    ended: dict[str, float] = {}
    with stream_pair() as (first, _), stream_pair() as (second, _), stream_pair() as (quick, other):

        async def wait(name: str, delay: float, near: PlainSocketStream) -> None:
            await trio.sleep(delay)
            begin = trio.current_time()
            patience.begin(near)
            assert await near.receive_eagerly(10) == b""
            ended[name] = trio.current_time() - begin
            assert not patience.end(near)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(patience.run)
            patience.begin(quick)
            assert patience.end(quick)
            async with trio.open_nursery() as waiting:
                waiting.start_soon(wait, "first", 3.0, first)
                waiting.start_soon(wait, "second", 7.0, second)
            nursery.cancel_scope.cancel()

        assert ended == {"first": pytest.approx(10), "second": pytest.approx(10)}
        # Who was in time is left alone.
        await other.send_all(b"hello")
        assert await quick.receive_eagerly(10) == b"hello"


async def test_who_has_left_meanwhile_is_no_trouble(autojump_clock: trio.testing.MockClock) -> None:
    patience = Patience(1)
    with stream_pair() as (near, _):
        patience.begin(near)
        near.close()
        with trio.move_on_after(5):
            await patience.run()
        assert not patience.end(near)
