from __future__ import annotations

import pytest
import trio
import trio.testing

from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.ssh.outlet import LARGE, Outlet
from tunnel_relay.ssh.packets import PacketWriter
from tunnel_relay.ssh.wire import open_wire


async def pair() -> tuple[PacketWriter, Outlet, trio.SocketStream, trio.SocketStream]:
    near, far = trio.socket.socketpair()
    await trio.lowlevel.checkpoint()
    writer = PacketWriter()
    stream = trio.SocketStream(near)
    outlet = Outlet(writer, open_wire(stream), lambda: writer.used > 0)
    return writer, outlet, stream, trio.SocketStream(far)


async def test_the_first_message_goes_at_once_and_the_next_ones_together() -> None:
    writer, outlet, near, far = await pair()
    async with near, far:
        writer.write_raw(b"one")
        outlet.push()
        assert await far.receive_some() == b"one"
        for text in (b"two", b"three"):
            writer.write_raw(text)
            outlet.push()
        assert writer.used == 8
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.run)
            assert await far.receive_some() == b"twothree"
            await outlet.wait_drained()
            nursery.cancel_scope.cancel()


async def test_large_writes_need_no_task() -> None:
    writer, outlet, near, far = await pair()
    async with near, far:
        for _ in range(3):
            writer.write_raw(bytes(LARGE))
            outlet.push()
            assert writer.used == 0


async def test_what_the_socket_does_not_take_is_sent_by_the_task() -> None:
    writer, outlet, near, far = await pair()
    async with near, far:
        data = bytes(range(256)) * 1900
        for _ in range(4):
            writer.write_raw(data)
            outlet.push()
            if writer.used:
                break
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.run)
            received = b""
            while len(received) % len(data) or not received:
                received += await far.receive_some(1 << 20)
            nursery.cancel_scope.cancel()
        assert received.startswith(data)


async def test_pushing_nothing_sends_nothing() -> None:
    _, outlet, near, far = await pair()
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(outlet.run)
        outlet.push()
        await trio.testing.wait_all_tasks_blocked()
        await outlet.wait_drained()
        with trio.move_on_after(0) as patience:
            await far.receive_some()
        assert patience.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_a_broken_wire_shows_in_the_task_only() -> None:
    writer, outlet, near, far = await pair()
    await far.aclose()
    async with near:
        writer.write_raw(b"x")
        outlet.push()
        with pytest.raises(SshDisconnectedError):
            await outlet.run()
