from __future__ import annotations

import pytest
import trio
import trio.testing

from session_proxy.errors import TransportDownError, UdpUnsupportedError
from session_proxy.outbound.successor import WAITING, Successor
from session_proxy.outbound.transport import HealthState
from session_proxy.target import Target
from tests.support.transports import FakeTransport

DB = Target("db", 5432)


async def test_who_connects_waits_for_the_transport() -> None:
    successor, transport = Successor("edge"), FakeTransport()
    assert (successor.health().state, successor.health().reason) == (HealthState.STARTING, WAITING)
    assert successor.streams() == 0
    await successor.wait_usable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(successor.connect_tcp, DB)
        nursery.start_soon(successor.wait_changed)
        await trio.testing.wait_all_tasks_blocked()
        assert transport.asked == []
        successor.arrived(transport)

    assert transport.asked == [DB]
    assert successor.health().state is HealthState.READY
    with pytest.raises(UdpUnsupportedError):
        await successor.open_udp()


async def test_who_waits_for_what_will_never_be_is_told(autojump_clock: trio.testing.MockClock) -> None:
    successor = Successor("edge")
    await trio.sleep(5)
    successor.failed("the key is none")

    assert successor.health().state is HealthState.DOWN
    assert successor.health().reason == "the key is none"
    for call in (successor.wait_usable, successor.open_udp):
        with pytest.raises(TransportDownError, match="the key is none"):
            await call()
    with trio.move_on_after(100) as waiting:
        await successor.wait_changed()
    assert waiting.cancelled_caught
