"""What a device has to hand out: datagrams to send, plaintexts that came, and what happened."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable

import attrs

from awg_obfs.events import DatagramRejected, DeviceEvent, Rejection
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.peers import Peer

# A caller that never asks for events shall not pay for it with memory; the oldest go first.
MAX_EVENTS = 4096

# Strangers decide how many datagrams are dropped. So many a second become events; more nobody reads.
TOLD_PER_SECOND = 16

# Looking for an explanation takes longer than anything else here, and junk has none.
EXPLAINED_PER_SECOND = 64

# What junk and signature packets end as: not worth telling.
EXPECTED = frozenset({Rejection.UNKNOWN_TYPE, Rejection.TOO_SMALL})


Hint = Callable[[Buffer], str]
"""Says which parameter a datagram hints at, "" if none."""


# Made for every few datagrams: a frozen class would take three times as long to make.
@attrs.define(eq=False)
class Outgoing:
    """Datagrams for one address, in order: one send call of the reference."""

    address: Address
    datagrams: list[bytes] = attrs.field(repr=lambda datagrams: f"<{len(datagrams)} datagrams>")


@attrs.define(eq=False)
class Incoming:
    """Plaintexts of one peer, in order. Zero bytes may follow them (or precede: `DeviceSettings.leading_fill`)."""

    peer: Peer
    plaintexts: list[Buffer] = attrs.field(repr=lambda plaintexts: f"<{len(plaintexts)} plaintexts>")


class Allowance:
    """So many a second."""

    __slots__ = ("_count", "_left", "_since")

    def __init__(self, count: int) -> None:
        self._count = self._left = count
        self._since = -math.inf

    def take(self, now: float) -> bool:
        """Take one, and tell whether there was one left."""
        if now - self._since >= 1.0:
            self._since, self._left = now, self._count
        if self._left == 0:
            return False
        self._left -= 1
        return True


@attrs.define(eq=False)
class Outbox:
    """Collects what the parts of a device produce, until the driver takes it."""

    outgoing: list[Outgoing] = attrs.field(factory=list[Outgoing], init=False)
    incoming: list[Incoming] = attrs.field(factory=list[Incoming], init=False)
    events: deque[DeviceEvent] = attrs.field(init=False)
    rejections: Counter[Rejection] = attrs.field(factory=Counter[Rejection], init=False)
    datagrams_sent: int = attrs.field(default=0, init=False)
    _told: Allowance = attrs.field(factory=lambda: Allowance(TOLD_PER_SECOND), init=False)
    _explained: Allowance = attrs.field(factory=lambda: Allowance(EXPLAINED_PER_SECOND), init=False)

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

    def tell_rarely(self, event: DeviceEvent, now: float) -> None:
        """Tell of something that strangers can cause as often as they like."""
        if self._told.take(now):
            self.events.append(event)

    def reject(
        self, reason: Rejection, source: Address, datagram: Buffer, now: float, hint: Hint | str = ""
    ) -> None:
        """Count a dropped datagram, and tell of it if there is something to tell."""
        self.rejections[reason] += 1
        if not isinstance(hint, str):
            hint = hint(datagram) if self._explained.take(now) else ""
        if hint or reason not in EXPECTED:
            self.tell_rarely(DatagramRejected(source, len(datagram), reason, hint), now)
