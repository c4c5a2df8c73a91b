"""One tunnel to one server: an AmneziaWG session, a QUIC connection inside it, and streams inside that.

The tunnel sees to itself, whether anybody uses it or not (see upkeep). What is asked of it while it does not work
waits, for `TunnelSettings.patience` seconds; then the tunnel counts as down, and says so at once until it works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import trio

from awg_obfs.asking import ask
from awg_obfs.background import open_background
from awg_obfs.condition import Condition
from awg_obfs.condition import TunnelState as TunnelState
from awg_obfs.datagrams import TunnelAssociation
from awg_obfs.devices import make_device
from awg_obfs.endpoint import ETHERNET_MTU
from awg_obfs.errors import DialFault, TunnelDialError, WireError
from awg_obfs.events import Rejection, TunnelEvent
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.datagram_wire import decode_frame
from awg_obfs.protocol.noise import NO_PRESHARED_KEY
from awg_obfs.protocol.parameters import DEFAULT, Parameters
from awg_obfs.protocol.tunnel_wire import OpenRequest
from awg_obfs.quic.driver import QuicConnection
from awg_obfs.quic.errors import ConnectionLostError
from awg_obfs.quic.settings import QuicSettings
from awg_obfs.quic.stream import QuicStream
from awg_obfs.upkeep import Upkeep


@attrs.frozen(kw_only=True)
class TunnelSettings:
    """A way to one server.

    Attributes:
      server: Where it listens, on UDP: an address or a name, and a port.
      private_key: Ours, 32 bytes.
      public_key: The server's.
      preshared_key: One more secret that both sides share.
      parameters: How the datagrams look.
      keepalive_padding: See `DeviceSettings`.
      mtu: Of the path to the server.
      patience: How long what is asked of the tunnel waits for it; a first request for a session and two repetitions
        fit.
      name: What the server is called in events.
      quic: Limits and intervals of the connection.

    """

    server: Address
    private_key: bytes = attrs.field(repr=False)
    public_key: bytes
    preshared_key: bytes = attrs.field(default=NO_PRESHARED_KEY, repr=False)
    parameters: Parameters = DEFAULT
    keepalive_padding: bool = False
    mtu: int = ETHERNET_MTU
    patience: float = 12.0
    name: str = "server"
    quic: QuicSettings = attrs.field(factory=QuicSettings)


@attrs.frozen(kw_only=True)
class TunnelStatistics:
    """A tunnel as it is now. *sent* and *received* are bytes of UDP's payloads since the start."""

    sent: int
    received: int
    round_trip: float | None
    streams: int
    associations: int
    rejections: Mapping[Rejection, int]


class Tunnel:
    """Made by `open_tunnel`."""

    def __init__(
        self, settings: TunnelSettings, on_event: Callable[[TunnelEvent], None], nursery: trio.Nursery
    ) -> None:
        self._nursery = nursery
        self._condition = Condition(settings.patience)
        self._device = make_device(
            settings.private_key, settings.parameters, keepalive_padding=settings.keepalive_padding
        )
        self._peer = self._device.add_peer(settings.public_key, settings.preshared_key, name=settings.name)
        self._associations: dict[int, TunnelAssociation] = {}
        self._upkeep = Upkeep(
            device=self._device,
            peer=self._peer,
            server=settings.server,
            mtu=settings.mtu,
            quic=settings.quic,
            condition=self._condition,
            on_event=on_event,
            serve=self._carry_datagrams,
        )

    @property
    def state(self) -> TunnelState:
        """How usable it is."""
        return self._condition.state

    @property
    def reason(self) -> str:
        """Why it is not ready, in a few words; empty where it is."""
        return self._condition.reason

    @property
    def since(self) -> float:
        """When it came into its state, on Trio's clock."""
        return self._condition.since

    async def wait_ready(self) -> None:
        """Wait until it works.

        Raises:
          TunnelDialError: it is down.

        """
        await trio.lowlevel.checkpoint()
        await self._condition.wait_ready()

    async def wait_usable(self) -> None:
        """Wait until it is not, or no longer, down."""
        await self._condition.wait_usable()

    async def wait_change(self) -> None:
        """Wait until it is in another state."""
        await self._condition.wait_change()

    async def probe(self) -> None:
        """Ask the server for a sign of life, and return when it has answered, or the session has ended first."""
        connection = await self._wait_connection(however_long=True)
        with suppress(ConnectionLostError):
            await connection.probe()

    def statistics(self) -> TunnelStatistics:
        """Return how it fares."""
        connection = self._upkeep.connection
        return TunnelStatistics(
            sent=self._peer.tx_bytes,
            received=self._peer.rx_bytes,
            round_trip=None if connection is None else connection.statistics().round_trip or None,
            streams=0 if connection is None else connection.open_streams - len(self._associations),
            associations=len(self._associations),
            rejections=Counter(self._device.rejections),
        )

    async def connect(
        self, host: str, port: int, early: bytes = b"", *, repeatable: bool = False
    ) -> QuicStream:
        """Return a stream to *host*, an address or a name that the server looks up.

        Waits while the tunnel is coming up. The server gets *early* bytes for the destination with the request. A
        request whose session is lost is made once more; with bytes that are not *repeatable* it is not, since they
        may have arrived. Cancelling it gives the request up, when they may have arrived as well.

        Raises:
          TunnelDialError: the fault says why.

        """
        try:
            request = OpenRequest(host, port).encode() + early
        except ValueError as exc:
            await trio.lowlevel.checkpoint()
            raise TunnelDialError(DialFault.RESOLUTION, str(exc)) from exc
        with self._condition.needed():
            try:
                return await ask(await self._wait_connection(), request)
            except ConnectionLostError as exc:
                if early and not repeatable:
                    raise _lost(exc) from exc
            # What the server had opened ended with the connection.
            try:
                return await ask(await self._wait_connection(), request)
            except ConnectionLostError as exc:
                raise _lost(exc) from exc
        raise AssertionError("whoever leaves the block early raises")

    def open_udp(self) -> TunnelAssociation:
        """Return an association for UDP; close it after use."""
        association = TunnelAssociation()
        self._nursery.start_soon(
            association.run, partial(self._wait_connection, however_long=True), self._associations
        )
        return association

    async def run(self) -> None:
        """Keep it up, for ever."""
        self._nursery.start_soon(self._condition.watch_patience)
        await self._upkeep.run()

    async def _wait_connection(self, *, however_long: bool = False) -> QuicConnection:
        """Return the connection when it works; while the tunnel is down, wait for it *however_long*, or raise."""
        condition = self._condition
        while True:
            await (condition.wait_working() if however_long else condition.wait_ready())
            connection = self._upkeep.connection
            if connection is not None and connection.failure is None:
                return connection
            # It has just ended, and the upkeep is about to learn of it.
            await condition.wait_change()

    async def _carry_datagrams(self, connection: QuicConnection) -> None:
        with suppress(ConnectionLostError):
            while True:
                frame = await connection.receive_datagram()
                with suppress(WireError):
                    held = decode_frame(frame)
                    association = self._associations.get(held.association)
                    if association is not None:
                        association.take(held, trio.current_time())


def _lost(exc: ConnectionLostError) -> TunnelDialError:
    return TunnelDialError(DialFault.DOWN, f"the session was lost: {exc.failure}", uncertain=True)


@asynccontextmanager
async def open_tunnel(
    settings: TunnelSettings, on_event: Callable[[TunnelEvent], None] = lambda _event: None
) -> AsyncGenerator[Tunnel]:
    """Keep a tunnel up while the block lasts. It begins at once: `Tunnel.wait_ready` waits until it works.

    Args:
      settings: The way to the server.
      on_event: Called with what happens. Must not block.

    Raises:
      NoiseError: the server's public key is none.
      NarrowPathError: the path to the server's address carries less than QUIC needs.
      ValueError: a key has not 32 bytes.

    """
    async with open_background() as nursery:
        tunnel = Tunnel(settings, on_event, nursery)
        nursery.start_soon(tunnel.run)
        yield tunnel
