"""Where the clients of a server go: names are looked up, addresses judged, and those that may be reached connected."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Hashable
from typing import Self

import attrs
import trio

from awg_obfs.connecting import connect_first, interleave
from awg_obfs.errors import DialFault, TunnelDialError
from awg_obfs.lookup_turns import LookupTurns
from awg_obfs.own_addresses import OwnAddresses
from awg_obfs.policy import IPAddress, Policy
from awg_obfs.protocol.address import Address


@attrs.frozen(eq=False)
class Destinations:
    """What a server's clients may reach, by *policy*."""

    policy: Policy
    _own: OwnAddresses = attrs.field(factory=OwnAddresses, repr=False)
    _turns: LookupTurns = attrs.field(factory=LookupTurns, repr=False)
    _client: Hashable = None

    def of_client(self, client: Hashable) -> Self:
        """Return the same for one *client*: what it looks up leaves room for what others do."""
        return attrs.evolve(self, client=client)

    def permits(self, address: IPAddress) -> bool:
        """Return whether clients may go to *address*, and hear from it."""
        return self.policy.permits(address, self._own.holds)

    async def connect(self, host: str, port: int) -> socket.socket:
        """Return a non-blocking socket connected to *host*; of several addresses, to the first that answers.

        Raises:
          TunnelDialError: its fault says why.

        """
        return await connect_first(await self.addresses(host, port))

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Return the addresses of *host* that may be reached, the resolver's choice first.

        Raises:
          TunnelDialError: there is none.

        """
        address = self.literal(host, port)
        if address is not None:
            return [address]
        found = await look_up(host, port, self._turns.of_client(self._client))
        allowed = [address for address in found if self.permits(ipaddress.ip_address(address[0]))]
        if not allowed:
            raise TunnelDialError(
                DialFault.NOT_ALLOWED, "the server's policy forbids every address of the name"
            )
        return interleave(allowed)

    def literal(self, host: str, port: int) -> Address | None:
        """Return where to go where *host* is an address; None where it is a name.

        Raises:
          TunnelDialError: the policy forbids it.

        """
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return None
        # A zone means something on one link of this machine only, and behind one its own addresses look like others.
        if "%" in host or not self.permits(address):
            raise TunnelDialError(
                DialFault.NOT_ALLOWED,
                "the server's policy forbids this address: [policy] allow in its file would open it",
            )
        # What was judged is what is connected to: IPv4, however it was spelt.
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return str(mapped or address), port


async def look_up(host: str, port: int, threads: trio.CapacityLimiter) -> list[Address]:
    """Return the addresses of a name, in the resolver's order.

    Raises:
      TunnelDialError: it has none, or the resolver does not answer.

    """

    def resolve() -> list[Address]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A zone means something on one link of this machine only, which is nobody else's business.
        return [_plain(str(name[0]), port) for _, _, _, _, name in found if "%" not in str(name[0])]

    try:
        addresses = await trio.to_thread.run_sync(resolve, limiter=threads, abandon_on_cancel=True)
    except socket.gaierror as exc:
        if exc.errno == socket.EAI_AGAIN:
            raise TunnelDialError(DialFault.RESOLUTION, "the resolver does not answer") from exc
        raise TunnelDialError(DialFault.RESOLUTION, "the name has no address") from exc
    except UnicodeError as exc:
        raise TunnelDialError(DialFault.RESOLUTION, "the name is none that DNS could know") from exc
    except OSError as exc:
        raise TunnelDialError(DialFault.DOWN, "the resolver does not work") from exc
    if not addresses:
        raise TunnelDialError(DialFault.RESOLUTION, "the name has no address")
    return list(dict.fromkeys(addresses))


def _plain(host: str, port: int) -> Address:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port
