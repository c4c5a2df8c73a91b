"""UDP associations at the client."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import attrs
import trio

from awg_obfs.asking import ask
from awg_obfs.errors import TunnelDialError, WireError
from awg_obfs.protocol.datagram_wire import (
    Datagram,
    Piece,
    Whole,
    association_number,
    decode_body,
    encode_frames,
)
from awg_obfs.protocol.reassembly import Reassembly
from awg_obfs.protocol.tunnel_wire import AssociateRequest, ResetCode, encode_address
from awg_obfs.quic.driver import QuicConnection
from awg_obfs.quic.errors import ConnectionLostError, StreamResetError

# Datagrams that wait for the server to agree to the association, which takes a round trip; and for who reads them.
MOST_UNSENT = 32
MOST_UNREAD = 256

# How soon to ask again where the server does not agree.
REFUSED_PAUSE = 1.0


@attrs.define(eq=False)
class Link:
    """An association as a server knows it: its *number* on a *connection*."""

    connection: QuicConnection
    number: int


Associations = dict[int, "TunnelAssociation"]
"""Those of a tunnel, by number."""


@attrs.define(eq=False)
class TunnelAssociation:
    """Datagrams to and from anywhere, through a tunnel. Made by `client.Tunnel.open_udp`.

    It outlives the connections of its tunnel, and what the server expires: with the next datagram it is asked for
    again. What is sent meanwhile may be lost, as with any datagram.
    """

    _link: Link | None = attrs.field(default=None, init=False, repr=False)
    _unsent: deque[tuple[bytes, bytes]] = attrs.field(
        factory=lambda: deque[tuple[bytes, bytes]](maxlen=MOST_UNSENT), init=False, repr=False
    )
    _unread: deque[Datagram] = attrs.field(
        factory=lambda: deque[Datagram](maxlen=MOST_UNREAD), init=False, repr=False
    )
    _came: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False, repr=False)
    _wanted: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)
    _reassembly: Reassembly = attrs.field(factory=Reassembly, init=False, repr=False)
    _count: int = attrs.field(default=0, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def send(self, host: str, port: int, payload: bytes) -> None:
        """Send *payload* to *host*, an address or a name that the server looks up. It may get lost.

        Raises:
          ValueError: there can be no such host or port.
          trio.ClosedResourceError: the association, or its tunnel, was closed.

        """
        if self._closed:
            raise trio.ClosedResourceError("the association was closed")
        address = encode_address(host, port)
        if self._link is None:
            self._unsent.append((address, payload))
            self._wanted.set()
        else:
            self._transmit(self._link, address, payload)

    async def receive(self) -> tuple[str, int, bytes]:
        """Return the next datagram: the address and port that it came from, and its payload.

        Raises:
          trio.ClosedResourceError: the association, or its tunnel, was closed.

        """
        await trio.lowlevel.checkpoint()
        while not self._unread:
            if self._closed:
                raise trio.ClosedResourceError("the association was closed")
            await self._came.park()
        datagram = self._unread.popleft()
        return datagram.host, datagram.port, datagram.payload

    def close(self) -> None:
        """Give the association up, here and at the server."""
        self._closed = True
        self._scope.cancel()
        self._came.unpark_all()

    async def aclose(self) -> None:
        """Do what `close` does, with a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    # -- what the tunnel calls

    async def run(
        self,
        wait_connection: Callable[[], Awaitable[QuicConnection]],
        associations: Associations,
    ) -> None:
        """Have the server keep the association while it is wanted, until `close`.

        *associations* are those of the tunnel by number, for what comes from the server.
        """
        try:
            with self._scope:
                while True:
                    await self._wanted.wait()
                    connection = await wait_connection()
                    await self._live(connection, associations)
        finally:
            self.close()

    def take(self, held: Whole | Piece, now: float) -> None:
        """Take what a frame of the server holds."""
        body = held.body if isinstance(held, Whole) else self._reassembly.add(held, now)
        if body is not None:
            try:
                self._unread.append(decode_body(body))
            except WireError:
                return
            self._came.unpark()

    async def _live(self, connection: QuicConnection, associations: Associations) -> None:
        """Ask for the association, and use it until it ends."""
        try:
            stream = await ask(connection, AssociateRequest().encode())
        except TunnelDialError:
            self._unsent.clear()
            self._wanted = trio.Event()
            await trio.sleep(REFUSED_PAUSE)
            return
        except ConnectionLostError:
            return
        number = association_number(stream.stream_id)
        associations[number] = self
        self._link = Link(connection, number)
        self._wanted = trio.Event()
        try:
            while self._unsent:
                self._transmit(self._link, *self._unsent.popleft())
            while await stream.receive_some():
                pass
        except (StreamResetError, ConnectionLostError):
            pass
        finally:
            self._link = None
            # Another connection may have given the number to another association.
            if associations.get(number) is self:
                del associations[number]
            stream.reset(ResetCode.CANCELLED)

    def _transmit(self, link: Link, address: bytes, payload: bytes) -> None:
        self._count += 1
        room = link.connection.largest_datagram
        try:
            for frame in encode_frames(link.number, address, payload, room, self._count):
                link.connection.send_datagram(frame)
        except ConnectionLostError:
            # This one is lost; whoever says it again finds another connection.
            self._wanted.set()
