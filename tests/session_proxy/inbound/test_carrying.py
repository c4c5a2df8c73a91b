from __future__ import annotations

import pytest
import trio
import trio.testing

from session_proxy.inbound.carrying import PARTING, PARTING_BYTES, carry, close_far, part
from session_proxy.inbound.front_door import CLOSING, Visit
from tests.support.doors import open_inner_door
from tests.support.sockets import read_all, stream_pair
from tunnel_relay.background import open_background


async def test_the_answer_comes_first_and_early_bytes_are_not_lost() -> None:
    visit = Visit(1, "client", 0.0)
    async with open_inner_door() as (door, _), open_background() as nursery:
        with stream_pair() as (client, near), stream_pair() as (far, server):
            nursery.start_soon(carry, door, visit, near, far, b"connected", b"early ")
            await client.send_all(b"and late")
            await client.send_eof()
            assert await read_all(server) == b"early and late"
            await server.send_all(b"|answer")
            await server.aclose()
            data = b""
            while len(data) < len(b"connected|answer"):
                data += await client.receive_some()
            assert data == b"connected|answer"
            await trio.testing.wait_all_tasks_blocked()
    assert visit.outcome == "ok"
    assert (visit.traffic.sent, visit.traffic.received) == (14, 7)


async def test_a_client_that_has_left_resets_the_destination() -> None:
    visit = Visit(1, "client", 0.0)
    async with open_inner_door() as (door, _):
        with stream_pair() as (client, near), stream_pair() as (far, server):
            client.abort()
            await trio.lowlevel.wait_readable(near.socket)
            await carry(door, visit, near, far, b"connected", b"")
            with pytest.raises(trio.BrokenResourceError):
                await server.receive_some()
    assert visit.outcome == "reset"


async def test_a_clean_end_closes_the_destination_in_order() -> None:
    with stream_pair() as (far, server):
        await close_far(far, clean=True)
        assert await server.receive_some() == b""


class SlowToClose(trio.abc.AsyncResource):
    """Takes its time for closing."""

    closed = ""

    async def aclose(self) -> None:
        try:
            await trio.sleep(CLOSING / 2)
            self.closed = "in order"
        except trio.Cancelled:
            self.closed = "by force"
            raise


@pytest.mark.parametrize(("clean", "how"), [(True, "in order"), (False, "by force")])
async def test_another_stream_is_closed_in_order_or_by_force(
    clean: bool, how: str, autojump_clock: trio.testing.MockClock
) -> None:
    one, _ = trio.testing.memory_stream_pair()
    slow = SlowToClose()
    one.aclose = slow.aclose
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_far(one, clean=clean)
    assert slow.closed == how


async def test_the_last_answer_arrives_although_the_client_goes_on_sending() -> None:
    """Closing with unread bytes would reset the connection, and the client would lose the answer."""
    with stream_pair() as (client, near):
        await client.send_all(bytes(100_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(part, near, b"no")
            assert await read_all(client) == b"no"
            await client.send_eof()
        near.close()


async def test_a_client_that_stays_is_left(autojump_clock: trio.testing.MockClock) -> None:
    begin = trio.current_time()
    with stream_pair() as (_client, near):
        await part(near, b"no")
    assert trio.current_time() - begin == pytest.approx(PARTING)


async def test_a_client_that_does_not_stop_sending_is_left() -> None:
    with stream_pair() as (client, near):
        async with open_background() as nursery:
            nursery.start_soon(client.send_all, bytes(8 * PARTING_BYTES))
            with trio.fail_after(PARTING):
                await part(near, b"no")
            assert await client.receive_some() == b"no"


async def test_a_client_that_has_left_is_no_trouble() -> None:
    with stream_pair() as (client, near):
        client.abort()
        await trio.lowlevel.wait_readable(near.socket)
        await part(near, b"no")
