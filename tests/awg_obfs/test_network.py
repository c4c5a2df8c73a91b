from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from awg_obfs.events import NetworkChange
from awg_obfs.network import INTERVAL, local_address, time_with_sleep, watch_network
from awg_obfs.protocol.address import Address

SERVER: Address = ("192.0.2.1", 443)


@attrs.define
class Machine:
    """One that can be moved and put to sleep; *seen* is what was told of it."""

    target: Address | None = SERVER
    local: str | None = "198.51.100.1"
    slept: float = 0.0
    seen: list[NetworkChange] = attrs.field(factory=list[NetworkChange])

    async def watch(self) -> None:
        await watch_network(
            lambda: self.target,
            self.seen.append,
            find_local=lambda _target: self.local,
            clock=lambda: 7.0 + trio.current_time() + self.slept,
        )

    async def look(self) -> list[NetworkChange]:
        """Return what the next look tells."""
        self.seen.clear()
        await trio.sleep(INTERVAL)
        return list(self.seen)


@pytest.fixture
async def machine(nursery: trio.Nursery) -> Machine:
    machine = Machine()
    nursery.start_soon(machine.watch)
    await trio.sleep(INTERVAL / 2)
    return machine


async def test_a_machine_that_stays_is_no_news(
    machine: Machine, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(5):
        assert await machine.look() == []


async def test_a_move_is_told_once(machine: Machine, autojump_clock: trio.testing.MockClock) -> None:
    machine.local = "203.0.113.1"
    assert await machine.look() == [NetworkChange.MOVED]
    assert await machine.look() == []


async def test_a_way_that_has_gone_is_told_when_there_is_one_again(
    machine: Machine, autojump_clock: trio.testing.MockClock
) -> None:
    machine.local = None
    assert await machine.look() == []
    assert await machine.look() == []
    machine.local = "198.51.100.1"
    assert await machine.look() == [NetworkChange.RETURNED]
    machine.local = None
    assert await machine.look() == []
    machine.local = "203.0.113.1"
    assert await machine.look() == [NetworkChange.MOVED]
    assert await machine.look() == []


async def test_a_sleep_is_told(machine: Machine, autojump_clock: trio.testing.MockClock) -> None:
    machine.slept = 3600.0
    assert await machine.look() == [NetworkChange.WOKE]
    assert await machine.look() == []


async def test_a_clock_that_is_corrected_is_no_sleep(
    machine: Machine, autojump_clock: trio.testing.MockClock
) -> None:
    machine.slept = 1.0
    assert await machine.look() == []
    machine.slept = 0.0
    assert await machine.look() == []


async def test_another_target_is_no_move(machine: Machine, autojump_clock: trio.testing.MockClock) -> None:
    machine.target, machine.local = ("2001:db8::1", 443), "2001:db8::2"
    assert await machine.look() == []
    machine.target, machine.local = None, None
    assert await machine.look() == []
    machine.target, machine.local = SERVER, "198.51.100.1"
    assert await machine.look() == []
    machine.local = "198.51.100.2"
    assert await machine.look() == [NetworkChange.MOVED]


def test_the_address_towards_somebody() -> None:
    assert local_address(("127.0.0.1", 9)) == "127.0.0.1"
    assert local_address(("::1", 9)) == "::1"
    assert local_address(("fe80::1%no-such-interface", 9)) is None
    # Nobody may send to all without asking for it.
    assert local_address(("255.255.255.255", 9)) is None


def test_the_clock_goes_on() -> None:
    assert time_with_sleep() <= time_with_sleep()
