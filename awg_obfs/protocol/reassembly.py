"""Datagrams from their pieces: a bounded number of bytes waits for a bounded time."""

from __future__ import annotations

import attrs

from awg_obfs.protocol.datagram_wire import MAX_PAYLOAD, Piece

# Datagrams of one association that are waiting for pieces, and what all their pieces may take: four of the
# longest. Pieces leave together, so a straggler is late by the jitter of the path.
MAX_INCOMPLETE = 16
MAX_WAITING = 4 * MAX_PAYLOAD
PATIENCE = 3.0


@attrs.define(eq=False)
class _Incomplete:
    began: float
    count: int
    pieces: dict[int, bytes] = attrs.field(factory=dict[int, bytes])
    size: int = 0


@attrs.define(eq=False)
class Reassembly:
    """Puts datagrams together again. The oldest are given up for newer ones: UDP may lose, but must not pile up."""

    _incomplete: dict[int, _Incomplete] = attrs.field(factory=dict[int, _Incomplete], init=False, repr=False)
    _size: int = attrs.field(default=0, init=False)
    dropped: int = attrs.field(default=0, init=False)
    """Datagrams given up."""

    def add(self, piece: Piece, now: float) -> bytes | None:
        """Take a piece; return the body of the datagram that it completes."""
        self._give_up_old(now)
        known = self._incomplete.get(piece.number)
        if known is not None and known.count != piece.count:
            # The numbers have gone round.
            self._give_up(piece.number)
            known = None
        if known is None:
            known = self._incomplete[piece.number] = _Incomplete(now, piece.count)
        if piece.index not in known.pieces:
            known.pieces[piece.index] = piece.body
            known.size += len(piece.body)
            self._size += len(piece.body)
        if len(known.pieces) == known.count:
            self._forget(piece.number)
            return b"".join(known.pieces[index] for index in range(known.count))
        while len(self._incomplete) > MAX_INCOMPLETE or self._size > MAX_WAITING:
            self._give_up(next(iter(self._incomplete)))
        return None

    def _give_up_old(self, now: float) -> None:
        while self._incomplete:
            oldest = next(iter(self._incomplete))
            if now - self._incomplete[oldest].began <= PATIENCE:
                return
            self._give_up(oldest)

    def _give_up(self, number: int) -> None:
        self._forget(number)
        self.dropped += 1

    def _forget(self, number: int) -> None:
        self._size -= self._incomplete.pop(number).size
