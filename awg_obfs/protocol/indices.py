"""The numbers by which the other side names our handshakes and sessions."""

from __future__ import annotations

from awg_obfs.protocol.keypairs import Keypair
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.randomness import Randomness

INDEX_LENGTH = 4


class IndexTable:
    """Which handshake or which keys an index stands for. Random, so that a stranger can only guess one."""

    __slots__ = ("handshakes", "keypairs")

    def __init__(self) -> None:
        self.handshakes: dict[int, Peer] = {}
        self.keypairs: dict[int, Keypair] = {}

    def assign(self, peer: Peer, random: Randomness) -> int:
        """Give *peer*'s handshake a new index, instead of the one it has."""
        self.release_handshake(peer)
        while (
            index := int.from_bytes(random(INDEX_LENGTH), "little")
        ) in self.handshakes or index in self.keypairs:
            pass
        self.handshakes[index] = peer
        peer.handshake_index = index
        return index

    def promote(self, keypair: Keypair) -> None:
        """Let the index of a handshake, which is over, stand for its keys."""
        del self.handshakes[keypair.local_index]
        keypair.peer.handshake_index = None
        self.keypairs[keypair.local_index] = keypair

    def peer_of(self, index: int) -> Peer | None:
        """Return whose handshake or session has the *index*."""
        keypair = self.keypairs.get(index)
        return self.handshakes.get(index) if keypair is None else keypair.peer

    def release_handshake(self, peer: Peer) -> None:
        """Forget the index of *peer*'s handshake."""
        if peer.handshake_index is not None:
            del self.handshakes[peer.handshake_index]
            peer.handshake_index = None

    def release(self, keypairs: list[Keypair]) -> None:
        """Forget the indices of keys that are not needed any more."""
        for keypair in keypairs:
            del self.keypairs[keypair.local_index]
