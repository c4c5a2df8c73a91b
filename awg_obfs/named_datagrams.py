"""Datagrams that go to names: what is known of the names, and what waits for them to be looked up. No I/O in here."""

from __future__ import annotations

import attrs

from awg_obfs.protocol.address import Address
from awg_obfs.protocol.datagram_wire import Datagram

# Names that one association remembers, so that not every datagram is a look-up.
MOST_NAMES = 64

# For how many seconds: what applications' own caches do, and short enough for a name that moves. A name that has no
# address, or whose servers do not answer, costs a look-up every few seconds, not one for every repetition.
NAME_LIFE = 60.0
FAILURE_LIFE = 5.0

# Datagrams that wait, those of one name, which must leave room for others, and bytes of all; more are dropped.
MOST_WAITING = 64
MOST_OF_NAME = 4
MOST_BYTES = 256 * 1024

Name = tuple[str, int]
"""A host, and a port."""


@attrs.frozen
class Answer:
    """What the resolver said of a name; *address* is None where there is nowhere to go. It counts until *until*."""

    address: Address | None
    until: float


@attrs.define(eq=False)
class NamedDatagrams:
    """The names of one association. Times are seconds on any clock that does not go backwards."""

    _answers: dict[Name, Answer] = attrs.field(factory=dict[Name, Answer], init=False, repr=False)
    _waiting: dict[Name, list[Datagram]] = attrs.field(
        factory=dict[Name, list[Datagram]], init=False, repr=False
    )
    _count: int = attrs.field(default=0, init=False)
    _bytes: int = attrs.field(default=0, init=False)

    def answer(self, name: Name, now: float) -> Answer | None:
        """Return what is known of *name*; None where it has to be looked up."""
        answer = self._answers.get(name)
        return None if answer is None or answer.until < now else answer

    def is_waited_for(self, name: Name) -> bool:
        """Return whether datagrams wait for *name*: then it is being looked up."""
        return name in self._waiting

    def let_wait(self, datagram: Datagram) -> bool:
        """Keep *datagram* until `learn`; return whether there was room."""
        name = datagram.host, datagram.port
        waiting = self._waiting.get(name, [])
        size = len(datagram.payload)
        if len(waiting) >= MOST_OF_NAME or self._count >= MOST_WAITING or self._bytes + size > MOST_BYTES:
            return False
        waiting.append(datagram)
        self._waiting[name] = waiting
        self._count += 1
        self._bytes += size
        return True

    def learn(self, name: Name, address: Address | None, now: float) -> list[Datagram]:
        """Remember what was found out about *name*; return the datagrams that have waited for it."""
        self._answers.pop(name, None)
        while len(self._answers) >= MOST_NAMES:
            self._answers.pop(next(iter(self._answers)))
        self._answers[name] = Answer(address, now + (FAILURE_LIFE if address is None else NAME_LIFE))
        waited = self._waiting.pop(name, [])
        self._count -= len(waited)
        self._bytes -= sum(len(datagram.payload) for datagram in waited)
        return waited
