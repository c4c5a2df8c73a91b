"""The keys of one session, and the three that a peer may have at a time (paper, section 6.1, and 5.4.5)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from awg_obfs.protocol.noise import Role
from awg_obfs.protocol.replay import ReplayWindow
from awg_obfs.protocol.timers import REFRESH_WHEN_RECEIVING, REJECT_AFTER_TIME, REKEY_AFTER_TIME

if TYPE_CHECKING:
    from awg_obfs.protocol.peers import Peer

REKEY_AFTER_MESSAGES = 1 << 60
REJECT_AFTER_MESSAGES = (1 << 64) - (1 << 13) - 1


class Keypair:
    """Two keys, one for each direction, with all that a packet needs: a lookup, and everything is at hand.

    *refresh_at* and *refresh_receiving_at* are when the initiator asks for new keys, having sent or received
    something; for the responder never. After *reject_at* the keys are not used.
    """

    __slots__ = (
        "counter",
        "initiator",
        "local_index",
        "open",
        "peer",
        "refresh_at",
        "refresh_receiving_at",
        "reject_at",
        "remote_index",
        "seal",
        "window",
    )

    def __init__(
        self, peer: Peer, role: Role, keys: tuple[bytes, bytes], indices: tuple[int, int], now: float
    ) -> None:
        """Take the *keys* to send and to receive with, and the local and the remote of the *indices*."""
        self.peer = peer
        self.initiator = role is Role.INITIATOR
        self.seal = ChaCha20Poly1305(keys[0]).encrypt
        self.open = ChaCha20Poly1305(keys[1]).decrypt
        self.local_index, self.remote_index = indices
        self.counter = 0
        self.window = ReplayWindow()
        self.refresh_at = now + REKEY_AFTER_TIME if self.initiator else math.inf
        self.refresh_receiving_at = now + REFRESH_WHEN_RECEIVING if self.initiator else math.inf
        self.reject_at = now + REJECT_AFTER_TIME

    def __repr__(self) -> str:
        return f"Keypair({'initiator' if self.initiator else 'responder'}, {self.counter} sent)"

    def can_send(self, count: int, now: float) -> bool:
        """Tell whether *count* more packets may be sealed with it."""
        return now < self.reject_at and self.counter + count <= REJECT_AFTER_MESSAGES


class Keypairs:
    """The *current* keys, the *previous* for what is still under way, the *next* until the initiator uses them."""

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.current: Keypair | None = None
        self.previous: Keypair | None = None
        self.next: Keypair | None = None

    def add(self, keypair: Keypair) -> list[Keypair]:
        """Take new keys, and return those that are not needed any more.

        The initiator knows that the responder has them. The responder waits for a first packet: `confirm`.
        """
        dropped = [self.previous]
        if not keypair.initiator:
            dropped.append(self.next)
            self.next, self.previous = keypair, None
        elif self.next is not None:
            dropped.append(self.current)
            self.previous, self.next, self.current = self.next, None, keypair
        else:
            self.previous, self.current = self.current, keypair
        return [old for old in dropped if old is not None]

    def confirm(self) -> list[Keypair]:
        """Make the next keys the current ones, and return those that are not needed any more."""
        dropped = [] if self.previous is None else [self.previous]
        self.previous, self.current, self.next = self.current, self.next, None
        return dropped

    def clear(self) -> list[Keypair]:
        """Forget all keys, and return them."""
        dropped = [old for old in (self.previous, self.current, self.next) if old is not None]
        self.previous = self.current = self.next = None
        return dropped
