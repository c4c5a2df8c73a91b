from __future__ import annotations

import ipaddress

import attrs
import pytest
import trio
import trio.testing

from awg_obfs import own_addresses
from awg_obfs.network import local_address
from awg_obfs.own_addresses import MEMORY, OwnAddresses
from awg_obfs.protocol.address import Address

FIRST = ipaddress.ip_address("198.51.100.1")
SECOND = ipaddress.ip_address("2001:db8::2")


@attrs.define
class Machine:
    """One that has the addresses *own* and says how often it was *asked*."""

    own: set[str] = attrs.field(factory=set[str])
    asked: int = 0

    def find_local(self, towards: Address) -> str | None:
        self.asked += 1
        if towards[0] in self.own:
            return towards[0]
        return None if ":" in towards[0] else "203.0.113.1"


async def test_addresses_of_the_machine_are_known_as_they_come_and_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Machine({str(SECOND)})
    addresses = OwnAddresses(machine.find_local)

    assert not addresses.holds(FIRST)
    assert addresses.holds(SECOND)
    machine.own = {str(FIRST)}
    await trio.sleep(MEMORY)
    assert addresses.holds(FIRST)
    assert not addresses.holds(SECOND)


async def test_the_system_is_not_asked_for_each_datagram(autojump_clock: trio.testing.MockClock) -> None:
    machine = Machine()
    addresses = OwnAddresses(machine.find_local)

    for _ in range(100):
        addresses.holds(FIRST)
    assert machine.asked == 1


async def test_what_is_remembered_is_bounded(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_addresses, "MOST_REMEMBERED", 10)
    machine = Machine()
    addresses = OwnAddresses(machine.find_local)

    for number in range(11):
        addresses.holds(FIRST + number)
    addresses.holds(FIRST)
    assert machine.asked == 12, "the first was forgotten"


async def test_this_machine_knows_its_own() -> None:
    addresses = OwnAddresses()

    assert addresses.holds(ipaddress.ip_address("127.0.0.1"))
    assert addresses.holds(ipaddress.ip_address("::1"))
    assert not addresses.holds(ipaddress.ip_address("255.255.255.255"))
    assert not addresses.holds(FIRST)
    outward = local_address((str(FIRST), 9))
    if outward is not None:
        assert addresses.holds(ipaddress.ip_address(outward))
