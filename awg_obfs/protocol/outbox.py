"""What a device has to hand out: datagrams to send, plaintexts that came, and what happened."""

from __future__ import annotations

import math
from collections import Counter, deque

import attrs

from awg_obfs.events import DatagramRejected, DeviceEvent, Rejection
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.peers import Peer

# A caller that never asks for events shall not pay for it with memory; the oldest go first.
MAX_EVENTS = 4096

# Strangers decide how many datagrams are dropped. So many a second are explained; more nobody reads.
TOLD_PER_SECOND = 16


@attrs.frozen(eq=False)
class Outgoing:
    """Datagrams for one address, in order: one send call of the reference."""

    address: Address
    datagrams: list[bytes] = attrs.field(repr=lambda datagrams: f"<{len(datagrams)} datagrams>")


@attrs.frozen(eq=False)
class Incoming:
    """Plaintexts of one peer, in order. Zero bytes may follow them (or precede: `DeviceSettings.leading_fill`)."""

    peer: Peer
    plaintexts: list[Buffer] = attrs.field(repr=lambda plaintexts: f"<{len(plaintexts)} plaintexts>")


@attrs.define(eq=False)
class Outbox:
    """Collects what the parts of a device produce, until the driver takes it."""

    outgoing: list[Outgoing] = attrs.field(factory=list[Outgoing], init=False)
    incoming: list[Incoming] = attrs.field(factory=list[Incoming], init=False)
    events: deque[DeviceEvent] = attrs.field(init=False)
    rejections: Counter[Rejection] = attrs.field(factory=Counter[Rejection], init=False)
    datagrams_sent: int = attrs.field(default=0, init=False)
    _told: int = attrs.field(default=0, init=False)
    _told_since: float = attrs.field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self.events = deque(maxlen=MAX_EVENTS)

    def send(self, address: Address, datagrams: list[bytes]) -> None:
        """Have *datagrams* sent."""
        self.outgoing.append(Outgoing(address, datagrams))
        self.datagrams_sent += len(datagrams)

    def send_to_peer(self, peer: Peer, datagrams: list[bytes]) -> None:
        """Have *datagrams* sent where *peer* is, if that is known."""
        if peer.endpoint is not None:
            self.send(peer.endpoint, datagrams)
            peer.tx_bytes += sum(map(len, datagrams))

    def may_tell(self, now: float) -> bool:
        """Tell whether something that strangers cause may still become an event."""
        if now - self._told_since >= 1.0:
            self._told_since, self._told = now, 0
        self._told += 1
        return self._told <= TOLD_PER_SECOND

    def reject(self, reason: Rejection, source: Address, size: int, now: float, hint: str = "") -> None:
        """Count a dropped datagram, and tell of it."""
        self.rejections[reason] += 1
        if self.may_tell(now):
            self.events.append(DatagramRejected(source, size, reason, hint))
