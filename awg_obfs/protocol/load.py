"""How much handshaking is too much, in all and for one sender."""

from __future__ import annotations

import math

# The reference is under load while so many handshake messages queue, and for a second after. Nothing queues here, so
# a bucket takes the queue's place: it empties as fast as one core handshakes without anybody else noticing (guessed;
# an answer takes 0.3 ms, so a seventh of its time).
QUEUED_UNDER_LOAD = 128
HANDSHAKES_PER_SECOND = 500.0
UNDER_LOAD_AFTER = 1.0

# What a sender that has proven its address may ask for while we are under load. The reference's numbers.
PER_SENDER_RATE = 20.0
PER_SENDER_BURST = 5.0

# How many senders are remembered. Each had to receive a cookie first, so an attacker needs as many addresses.
MAX_SENDERS = 4096


class LoadGauge:
    """Tells when handshake messages come faster than they should be answered."""

    __slots__ = ("_level", "_measured", "_until")

    def __init__(self) -> None:
        self._level = 0.0
        self._measured = -math.inf
        self._until = -math.inf

    def add_message(self, now: float) -> bool:
        """Count a handshake message, and tell whether we are under load."""
        drained = (now - self._measured) * HANDSHAKES_PER_SECOND
        self._level = max(0.0, self._level - drained) + 1.0
        self._measured = now
        if self._level >= QUEUED_UNDER_LOAD:
            self._until = now + UNDER_LOAD_AFTER
        return now < self._until

    def assume(self, until: float) -> None:
        """Be under load until then, whatever comes."""
        self._until = max(self._until, until)


class SenderLimits:
    """A token bucket for each sender, which is forgotten when it is full again."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        # When the bucket will be full, by sender; the one heard from longest ago comes first.
        self._buckets: dict[bytes, float] = {}

    def allow(self, sender: bytes, now: float) -> bool:
        """Take a token of *sender*'s, and tell whether there was one."""
        full_at = max(self._buckets.pop(sender, now), now)
        allowed = full_at - now <= (PER_SENDER_BURST - 1.0) / PER_SENDER_RATE + 1e-9
        if allowed:
            full_at += 1.0 / PER_SENDER_RATE
        self._make_room(now)
        self._buckets[sender] = full_at
        return allowed

    def _make_room(self, now: float) -> None:
        while self._buckets:
            oldest = next(iter(self._buckets))
            if self._buckets[oldest] > now and len(self._buckets) < MAX_SENDERS:
                return
            del self._buckets[oldest]
