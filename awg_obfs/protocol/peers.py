"""What a device knows about one other side."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import attrs

from awg_obfs.protocol.address import Address
from awg_obfs.protocol.cookies import MacMaker
from awg_obfs.protocol.keypairs import Keypairs
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.noise import Handshake
from awg_obfs.protocol.timers import PeerTimers

# How many containers wait for a session; the oldest goes first. The reference's number.
MAX_STAGED = 128


@attrs.define(eq=False, kw_only=True)
class Peer:
    """One other side of a device.

    *endpoint* is where it was last heard from, `None` until then unless configured. *last_timestamp* is the stamp
    of its newest initiation: keep it over a restart, and nobody can have an old initiation answered. The counters
    count as the reference does: what was sent, with all paddings and junk, and what was received and authentic.
    *round_trip* is how long the last handshake took from our message in it to the answer, in seconds.
    """

    public_key: bytes = attrs.field(repr=False)
    name: str = ""
    endpoint: Address | None = None
    last_timestamp: bytes = attrs.field(default=b"", repr=False)
    last_handshake: float | None = None
    round_trip: float | None = None
    tx_bytes: int = 0
    rx_bytes: int = 0
    handshake: Handshake = attrs.field(repr=False)
    macs: MacMaker = attrs.field(repr=False)
    timers: PeerTimers = attrs.field(repr=False)
    keypairs: Keypairs = attrs.field(factory=Keypairs, init=False, repr=False)
    staged: deque[Sequence[Buffer]] = attrs.field(init=False, repr=False)
    # Our index in the handshake under way, and the other side's.
    handshake_index: int | None = attrs.field(default=None, init=False, repr=False)
    remote_index: int = attrs.field(default=0, init=False, repr=False)
    last_stamp_sent: bytes = attrs.field(default=b"", init=False, repr=False)
    # Until then no initiation is sent, because a handshake message just was; and none is accepted.
    silent_until: float = attrs.field(default=-math.inf, init=False, repr=False)
    deaf_until: float = attrs.field(default=-math.inf, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.staged = deque(maxlen=MAX_STAGED)

    @property
    def has_session(self) -> bool:
        """Whether there are keys to send with, be they near their end."""
        return self.keypairs.current is not None
