from __future__ import annotations

import ipaddress
import socket
import threading
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from awg_obfs.destinations import Destinations, look_up
from awg_obfs.errors import DialFault, TunnelDialError
from awg_obfs.lookup_turns import MOST_LOOKUPS
from awg_obfs.own_addresses import OwnAddresses
from awg_obfs.policy import Policy, networks

SECONDS = 5


def answer(monkeypatch: pytest.MonkeyPatch, *hosts: str, error: Exception | None = None) -> None:
    """Have the resolver say *hosts*, or fail."""

    def getaddrinfo(_host: str, port: int, **_: object) -> list[Any]:
        if error is not None:
            raise error
        return [
            (socket.AF_INET6, 0, 0, "", (host, port, 0, 0))
            if ":" in host
            else (socket.AF_INET, 0, 0, "", (host, port))
            for host in hosts
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_names_are_judged_by_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name with several addresses those are left that may be reached: a name must not lead inside."""
    answer(monkeypatch, "10.0.0.1", "203.0.114.1", "::1", "2606:4700::1", "::ffff:127.0.0.1", "203.0.114.1")

    addresses = await Destinations(Policy()).addresses("web.example", 443)

    assert addresses == [("203.0.114.1", 443), ("2606:4700::1", 443)]


async def test_a_name_that_leads_only_inside_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "169.254.169.254", "fd00:ec2::254")

    with pytest.raises(TunnelDialError, match="every address of the name") as caught:
        await Destinations(Policy()).addresses("metadata.google.internal", 80)
    assert caught.value.fault is DialFault.NOT_ALLOWED


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.1", "2130706433", "0177.0.0.1"])
async def test_no_spelling_of_loopback_gets_through(host: str) -> None:
    """The resolver takes them for 127.0.0.1, as inet_aton does; or it does not know them."""
    with pytest.raises(TunnelDialError) as caught:
        await Destinations(Policy()).addresses(host, 80)
    assert caught.value.fault in {DialFault.NOT_ALLOWED, DialFault.RESOLUTION}


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "64:ff9b::a00:1"]
)
async def test_addresses_are_judged_as_they_are(host: str) -> None:
    with pytest.raises(TunnelDialError) as caught:
        await Destinations(Policy()).connect(host, 80)
    assert caught.value.fault is DialFault.NOT_ALLOWED


async def test_what_was_judged_is_what_is_connected_to() -> None:
    destinations = Destinations(Policy(deny=networks("10.0.0.0/8")))

    assert await destinations.addresses("::ffff:192.0.2.1", 80) == [("192.0.2.1", 80)]
    assert destinations.literal("2001:db8::1", 80) == ("2001:db8::1", 80)
    assert destinations.literal("name.example", 80) is None


async def test_a_public_address_of_the_machine_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    destinations = Destinations(Policy(), OwnAddresses(lambda _towards: "198.41.0.4"))

    assert destinations.permits(ipaddress.ip_address("198.41.0.5"))
    assert not destinations.permits(ipaddress.ip_address("198.41.0.4"))
    with pytest.raises(TunnelDialError, match="this address"):
        destinations.literal("198.41.0.4", 22)
    answer(monkeypatch, "198.41.0.4", "198.41.0.5")
    assert await destinations.addresses("web.example", 443) == [("198.41.0.5", 443)]


@pytest.mark.parametrize("zone", ["0", "2", "eth0"])
async def test_no_zone_hides_whose_address_it_is(zone: str) -> None:
    """The kernel passes over the zone of an address that needs none, and so would lead to the machine itself."""
    own = OwnAddresses(lambda _towards: "2606:4700::4")

    for destinations in (Destinations(Policy(), own), Destinations(Policy(deny=()), own)):
        with pytest.raises(TunnelDialError, match="this address") as caught:
            destinations.literal(f"2606:4700::4%{zone}", 22)
        assert caught.value.fault is DialFault.NOT_ALLOWED


async def test_a_connection_comes_about() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, trio.fail_after(SECONDS):
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            with await Destinations(Policy(deny=())).connect(host, port) as sock:
                assert sock.getpeername()[1] == port


async def test_one_client_does_not_keep_another_from_the_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        if host == "slow.example":
            answered.wait()
        return [(socket.AF_INET, 0, 0, "", ("203.0.114.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    destinations = Destinations(Policy())
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            try:
                for port in range(1, MOST_LOOKUPS + 1):
                    nursery.start_soon(destinations.of_client("greedy").addresses, "slow.example", port)
                await wait_all_tasks_blocked()
                found = await destinations.of_client("modest").addresses("quick.example", 443)
            finally:
                answered.set()
    assert found == [("203.0.114.1", 443)]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (socket.gaierror(socket.EAI_NONAME, ""), DialFault.RESOLUTION),
        (socket.gaierror(socket.EAI_AGAIN, ""), DialFault.RESOLUTION),
        (UnicodeError(), DialFault.RESOLUTION),
        (OSError(), DialFault.DOWN),
    ],
)
async def test_a_resolver_that_fails_is_understood(
    error: Exception, fault: DialFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, error=error)
    with pytest.raises(TunnelDialError) as caught:
        await look_up("name.example", 1, trio.CapacityLimiter(1))
    assert caught.value.fault is fault


async def test_addresses_of_one_link_are_nobody_elses_business(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "fe80::1%eth0")
    with pytest.raises(TunnelDialError, match="no address") as caught:
        await look_up("printer.local", 1, trio.CapacityLimiter(1))
    assert caught.value.fault is DialFault.RESOLUTION
