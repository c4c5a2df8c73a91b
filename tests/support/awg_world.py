"""Two devices, or more, and the network between them, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from typing import TypeVar

import attrs

from awg_obfs.events import DeviceEvent
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.noise import NO_PRESHARED_KEY, PrivateKey
from awg_obfs.protocol.parameters import DEFAULT, Parameters, parameters_from_mapping
from awg_obfs.protocol.peers import Peer

START_UNIX = 1_765_497_600
CLIENT: Address = ("192.0.2.1", 40000)
SERVER: Address = ("192.0.2.2", 51820)

AS_THE_REFERENCE = DeviceSettings()

OBFUSCATED = parameters_from_mapping(
    {
        "jc": 3,
        "jmin": 10,
        "jmax": 30,
        "s1": 15,
        "s2": 18,
        "s3": 20,
        "s4": 12,
        "h1": "100000-199999",
        "h2": "200000-299999",
        "h3": "300000-399999",
        "h4": "400000-499999",
        "i1": "<b 0xc0ff><r 8>",
    }
)


Told = TypeVar("Told", bound=DeviceEvent)


@attrs.define(eq=False)
class Station:
    """A device at an address, and everything that it has handed out so far."""

    device: Device
    identity: PrivateKey
    address: Address
    received: list[bytes] = attrs.field(factory=list[bytes], init=False)
    events: list[DeviceEvent] = attrs.field(factory=list[DeviceEvent], init=False)
    sent: list[bytes] = attrs.field(factory=list[bytes], init=False)

    def told(self, kind: type[Told]) -> list[Told]:
        """Return the events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]


@attrs.define(eq=False)
class World:
    """Carries datagrams between stations after *delay* seconds, unless *loses* says that one gets lost."""

    seed: int = 1
    delay: float = 0.01
    loses: Callable[[bytes], bool] = attrs.field(default=lambda _datagram: False)
    now: float = attrs.field(default=1000.0, init=False)
    # Added to the wall clock, which may be set.
    clock_offset: float = attrs.field(default=0.0, init=False)
    stations: list[Station] = attrs.field(factory=list[Station], init=False)
    rng: random.Random = attrs.field(init=False)
    _in_flight: list[tuple[float, int, Address, Address, bytes]] = attrs.field(
        factory=list[tuple[float, int, Address, Address, bytes]], init=False
    )
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    def __attrs_post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def unix_time_ns(self) -> int:
        return int((START_UNIX + self.now + self.clock_offset) * 1e9)

    def add_station(
        self,
        address: Address,
        parameters: Parameters = DEFAULT,
        settings: DeviceSettings = AS_THE_REFERENCE,
        identity: PrivateKey | None = None,
    ) -> Station:
        """Put a device at *address*."""
        identity = identity or PrivateKey(self.rng.randbytes(32))
        device = Device(identity, parameters, settings, self.rng.randbytes, self.unix_time_ns, self.now)
        station = Station(device, identity, address)
        self.stations.append(station)
        return station

    def run(self, seconds: float = 1.0) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            self.collect()
            timers = [
                (due, station)
                for station in self.stations
                if (due := station.device.next_timer()) is not None
            ]
            due = min((due for due, _ in timers), default=math.inf)
            arrival = self._in_flight[0][0] if self._in_flight else math.inf
            if min(due, arrival) > end:
                self.now = end
                return
            self.now = max(self.now, min(due, arrival))
            if arrival <= due:
                self._arrive()
            else:
                for when, station in timers:
                    if when <= self.now:
                        station.device.handle_timer(self.now)

    def collect(self) -> None:
        """Take what the devices hand out."""
        for station in self.stations:
            device = station.device
            for outgoing in device.take_outgoing():
                for datagram in outgoing.datagrams:
                    station.sent.append(datagram)
                    if not self.loses(datagram):
                        self.carry(station.address, outgoing.address, datagram)
            for incoming in device.take_incoming():
                station.received += [bytes(plaintext) for plaintext in incoming.plaintexts]
            station.events += device.take_events()

    def carry(self, source: Address, target: Address, datagram: bytes) -> None:
        """Put a datagram on its way."""
        heapq.heappush(
            self._in_flight, (self.now + self.delay, next(self._numbers), source, target, datagram)
        )

    def _arrive(self) -> None:
        _, _, source, target, datagram = heapq.heappop(self._in_flight)
        for station in self.stations:
            if station.address == target:
                station.device.receive([datagram], source, self.now)


@attrs.define(eq=False)
class Couple:
    """A client that knows where its server is, and the server, in a world of their own."""

    world: World
    client: Station
    server: Station
    to_server: Peer
    to_client: Peer

    @classmethod
    def meet(
        cls,
        parameters: Parameters = DEFAULT,
        server_parameters: Parameters | None = None,
        *,
        settings: DeviceSettings = AS_THE_REFERENCE,
        preshared_keys: tuple[bytes, bytes] = (NO_PRESHARED_KEY, NO_PRESHARED_KEY),
        persistent_keepalive: float = 0.0,
        world: World | None = None,
    ) -> Couple:
        """Introduce the two to each other."""
        world = world or World()
        client = world.add_station(CLIENT, parameters, settings)
        server = world.add_station(SERVER, server_parameters or parameters, settings)
        to_server = client.device.add_peer(
            server.identity.public, preshared_keys[0], SERVER, persistent_keepalive, name="server"
        )
        to_client = server.device.add_peer(client.identity.public, preshared_keys[1], name="client")
        return cls(world, client, server, to_server, to_client)

    def say(self, *plaintexts: bytes) -> None:
        """Have the client send."""
        self.client.device.send(self.to_server, plaintexts, self.world.now)

    def answer(self, *plaintexts: bytes) -> None:
        """Have the server send."""
        self.server.device.send(self.to_client, plaintexts, self.world.now)

    def talk(self, *plaintexts: bytes) -> None:
        """Have the client send, and everything arrive that follows from it."""
        self.say(*plaintexts)
        self.world.run(0.5)

    def restart_server(self, last_timestamp: bytes = b"") -> None:
        """Give the server a device that remembers nothing but its configuration."""
        parameters, settings = self.server.device.parameters, self.server.device.settings
        self.world.stations.remove(self.server)
        self.server = self.world.add_station(SERVER, parameters, settings, self.server.identity)
        self.to_client = self.server.device.add_peer(
            self.client.identity.public, last_timestamp=last_timestamp, name="client"
        )


def block(text: str) -> bytes:
    """Return *text* as content that needs no zero fill: a multiple of 16 bytes that begins with no zero."""
    content = text.encode()
    return content.ljust(-(-len(content) // 16) * 16, b".")
