from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.support.exchanges import exchange
from tests.support.relay_ports import Carrier
from tunnel_relay.agent.offering import Offering
from tunnel_relay.background import open_background
from tunnel_relay.protocol.frames import LINK, FrameType
from tunnel_relay.protocol.greetings import GoAway, read_go_away
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import StreamRefusedError


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


async def test_services_are_reached_by_name_and_may_be_replaced() -> None:
    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        address = listeners[0].socket.getsockname()[:2]
        offering = Offering(nursery, {"echo": address}, "one", SessionSettings())
        assert await exchange(await offering.connect("echo"), b"hello") == b"hello"
        offering.services = {"mirror": address}
        with pytest.raises(StreamRefusedError, match="no service 'echo' is offered") as caught:
            await offering.connect("echo")
        assert caught.value.reason is Reason.NO_SUCH_SERVICE
        assert await exchange(await offering.connect("mirror"), b"again") == b"again"


async def test_who_drains_says_so_over_each_link() -> None:
    async with open_background() as nursery:
        offering = Offering(nursery, {}, "one", SessionSettings())
        first, second = Carrier(), Carrier()
        offering.attach(first)
        assert first.own == []
        offering.drain("that was it")
        offering.attach(second)
        for carrier in (first, second):
            [frame] = carrier.own
            assert (frame.type, frame.session) == (FrameType.GOAWAY, LINK)
            assert read_go_away(frame.payload) == GoAway(lost=False, detail="that was it")


async def test_a_service_that_is_not_there_refuses_and_that_is_told_once() -> None:
    told: list[tuple[str, str]] = []
    said = "127.0.0.1, port 1: the target refused the connection"
    async with open_background() as nursery:
        offering = Offering(nursery, {"ssh": ("127.0.0.1", 1)}, "one", SessionSettings())
        offering.unreached = lambda service, reason: told.append((service, reason))
        for _ in range(3):
            with pytest.raises(StreamRefusedError, match=said) as caught:
                await offering.connect("ssh")
            assert caught.value.reason is Reason.REFUSED
        assert told == [("ssh", said)]
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        offering.services = {"ssh": listeners[0].socket.getsockname()[:2]}
        await trio.aclose_forcefully(await offering.connect("ssh"))
        offering.services = {"ssh": ("127.0.0.1", 1)}
        with pytest.raises(StreamRefusedError):
            await offering.connect("ssh")
        assert told == [("ssh", said)] * 2
