"""The way out that needs no upstream: this machine's own network."""

from __future__ import annotations

import socket

import attrs
import trio

from session_proxy.errors import ResolutionError, TransportDownError
from session_proxy.outbound.connecting import SocketAddress, connect_first, interleave
from session_proxy.outbound.direct_udp import DirectDatagrams
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.outbound.transport import Health, HealthState, Services
from session_proxy.target import Target

# getaddrinfo(3) blocks a thread for as long as the resolver takes. A slow one must not take all the threads
# that Trio has for everything else; this many look-ups at once are more than a resolver likes to get.
MOST_LOOKUPS = 32


@attrs.frozen(eq=False)
class DirectTransport:
    """Connects from this machine. Names are looked up by the system's resolver, in threads."""

    services: Services = attrs.field(factory=Services)
    _threads: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(MOST_LOOKUPS), init=False, repr=False
    )

    async def connect_tcp(self, target: Target) -> PlainSocketStream:
        """Connect to *target*; of a name with several addresses, to the first that answers.

        Raises:
          DialError: the subclass says why.

        """
        address = target.address
        if address is None:
            addresses = await self.look_up(target, socket.SOCK_STREAM)
        elif address.version == 4:
            addresses = [SocketAddress(socket.AF_INET, (target.host, target.port))]
        else:
            addresses = [SocketAddress(socket.AF_INET6, (target.host, target.port))]
        return PlainSocketStream(await connect_first(addresses))

    async def look_up(self, target: Target, kind: int) -> list[SocketAddress]:
        """Return the addresses of the name in *target*, as ``SOCK_STREAM`` or ``SOCK_DGRAM`` takes them.

        Raises:
          ResolutionError: it has none, or the resolver does not answer.

        """

        def resolve() -> list[SocketAddress]:
            found = socket.getaddrinfo(target.host, target.port, type=kind)
            return [SocketAddress(family, _socket_name(name)) for family, _, _, _, name in found]

        try:
            addresses = await trio.to_thread.run_sync(resolve, limiter=self._threads, abandon_on_cancel=True)
        except socket.gaierror as exc:
            if exc.errno == socket.EAI_AGAIN:
                raise ResolutionError("this machine's resolver does not answer") from exc
            raise ResolutionError("the name has no address here") from exc
        except UnicodeError as exc:
            raise ResolutionError("the name is none that DNS could know") from exc
        except OSError as exc:
            raise TransportDownError("this machine's resolver does not work") from exc
        return interleave(list(dict.fromkeys(addresses)))

    async def open_udp(self) -> DirectDatagrams:
        """Open a UDP socket for one association, for IPv4 and IPv6 alike.

        Raises:
          TransportDownError: this process may open no more sockets.

        """
        await trio.lowlevel.checkpoint()
        return DirectDatagrams.open(self.look_up)

    async def wait_usable(self) -> None:
        """Return at once: it always is."""
        await trio.lowlevel.checkpoint()

    async def wait_changed(self) -> None:
        """Wait for ever."""
        await trio.sleep_forever()

    def health(self) -> Health:
        """Return that it is ready, always: each destination is a matter of its own."""
        return Health(HealthState.READY)

    def streams(self) -> int:
        """Return 0: there is nothing to close that its connections need."""
        return 0


def _socket_name(name: tuple[object, ...]) -> tuple[str, int] | tuple[str, int, int, int]:
    match name:
        case (str(host), int(port)):
            return (host, port)
        case (str(host), int(port), int(flow), int(scope)):
            return (host, port, flow, scope)
        case _:
            raise OSError("this Python has no IPv6, and the resolver answers with it")
