from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio
import trio.testing

from awg_obfs.backlog import MAX_WAITING_BYTES, Backlog
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.outbox import Outgoing

HERE: Address = ("192.0.2.1", 1)
THERE: Address = ("192.0.2.2", 2)


@attrs.define
class Kernel:
    """Has room for so many datagrams."""

    room: int
    passed: list[tuple[Address, bytes]] = attrs.field(factory=list[tuple[Address, bytes]])

    def send(self, address: Address, datagrams: Sequence[bytes]) -> int:
        count = min(self.room, len(datagrams))
        self.room -= count
        self.passed += [(address, datagram) for datagram in datagrams[:count]]
        return count


def test_all_leave_in_order_as_there_is_room() -> None:
    backlog, kernel = Backlog(), Kernel(2)
    backlog.add(Outgoing(HERE, [b"1", b"2", b"3"]))
    backlog.add(Outgoing(THERE, [b"4"]))
    backlog.send(kernel.send)
    assert [datagram for _, datagram in kernel.passed] == [b"1", b"2"]
    assert backlog
    kernel.room = 5
    backlog.send(kernel.send)
    assert kernel.passed == [(HERE, b"1"), (HERE, b"2"), (HERE, b"3"), (THERE, b"4")]
    assert not backlog


def test_the_newest_are_dropped_when_there_are_too_many() -> None:
    backlog, kernel = Backlog(), Kernel(10)
    backlog.add(Outgoing(HERE, [bytes(MAX_WAITING_BYTES - 1)]))
    backlog.add(Outgoing(HERE, [b"1", b"2"]))
    assert backlog.dropped == 2
    backlog.add(Outgoing(HERE, [b"3"]))
    backlog.send(kernel.send)
    assert [datagram[-1:] for _, datagram in kernel.passed] == [b"\0", b"3"]
    # There is as much room as at first.
    backlog.add(Outgoing(HERE, [bytes(MAX_WAITING_BYTES)]))
    assert backlog.dropped == 2


def test_clearing_makes_room() -> None:
    backlog, kernel = Backlog(), Kernel(10)
    for _ in range(2):
        backlog.add(Outgoing(HERE, [bytes(MAX_WAITING_BYTES)]))
        backlog.clear()
    backlog.send(kernel.send)
    assert not kernel.passed
    assert not backlog.dropped


async def test_one_can_wait_for_something_to_wait(nursery: trio.Nursery) -> None:
    backlog = Backlog()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        while True:
            await backlog.wait_crowded()
            woken += 1
            backlog.send(Kernel(10).send)

    nursery.start_soon(wait)
    for expected in (1, 2):
        backlog.add(Outgoing(HERE, [b"1"]))
        await trio.testing.wait_all_tasks_blocked()
        assert woken == expected
