"""How usable a tunnel is, and those who wait for it."""

from __future__ import annotations

import enum
import math
from collections.abc import Generator
from contextlib import contextmanager

import attrs
import trio

from awg_obfs.errors import DialFault, TunnelDialError


class TunnelState(enum.StrEnum):
    """How usable a tunnel is now."""

    STARTING = "starting"
    """It is coming up, or coming back: what is asked of it waits."""
    READY = "ready"
    DOWN = "down"
    """It has not come up in time, and goes on trying: what is asked of it fails at once."""


# How a reason begins where there is nothing but silence, which says nothing about its cause.
NO_ANSWER = "no answer from"

# How a reason ends where the handshake came about, and the session's packets are lost or not recognised.
NOTHING_THROUGH = "agreed on keys, but nothing has come through since"

# What was learnt about the server is better than "no answer" for so long: it is asked for keys every 5 s, and two
# answers may get lost.
CLUE_LASTS = 15.0


@attrs.define(eq=False)
class Condition:
    """The *state* of a tunnel, why it is in it (*reason*), and *since* when, on Trio's clock.

    It may be starting for *patience* seconds.
    """

    patience: float
    state: TunnelState = attrs.field(default=TunnelState.STARTING, init=False)
    reason: str = attrs.field(default="starting", init=False)
    since: float = attrs.field(factory=trio.current_time, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    _waiting: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope], init=False, repr=False)
    _given_up: str = attrs.field(default="", init=False, repr=False)
    """Why it went down last."""
    _clue: str = attrs.field(default="", init=False, repr=False)
    _clue_until: float = attrs.field(default=-math.inf, init=False, repr=False)

    def ready(self) -> None:
        """It works."""
        self._clue_until = -math.inf
        self._become(TunnelState.READY, "")

    def troubled(self, reason: str) -> None:
        """It does not work just now. One that is down stays so until it works."""
        if self.state is TunnelState.READY:
            self._become(TunnelState.STARTING, reason)
        else:
            self.reason = reason

    def learnt(self, clue: str) -> None:
        """Something came that says why it does not work. While it works, nothing does."""
        if self.state is not TunnelState.READY:
            self._clue, self._clue_until = clue, trio.current_time() + CLUE_LASTS
            self.reason = clue

    def unanswered(self, reason: str) -> None:
        """It does not work, and *reason* only says that nothing came; what was `learnt` lately says more."""
        self.troubled(self._clue if trio.current_time() < self._clue_until else reason)

    async def wait_ready(self) -> None:
        """Wait until it works.

        Raises:
          TunnelDialError: it is down.

        """
        while self.state is not TunnelState.READY:
            self._check()
            await self._changed.wait()

    async def wait_usable(self) -> None:
        """Wait until it is not, or no longer, down."""
        await trio.lowlevel.checkpoint()
        while self.state is TunnelState.DOWN:
            await self._changed.wait()

    async def wait_change(self) -> None:
        """Wait until the state is another one."""
        await self._changed.wait()

    async def wait_working(self) -> None:
        """Wait until it works, however long it is down."""
        while self.state is not TunnelState.READY:
            await self._changed.wait()

    @contextmanager
    def needed(self) -> Generator[None]:
        """Give the block up when the tunnel goes down.

        Raises:
          TunnelDialError: it did.

        """
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)
        if scope.cancelled_caught:
            # It may be back already.
            raise TunnelDialError(DialFault.DOWN, self._given_up, uncertain=True)

    async def watch_patience(self) -> None:
        """Call it down when it has been starting for too long; for ever."""
        while True:
            changed = self._changed
            starting = self.state is TunnelState.STARTING
            with trio.move_on_at(self.since + self.patience if starting else math.inf) as waiting:
                await changed.wait()
            if waiting.cancelled_caught:
                self._given_up = self.reason
                self._become(TunnelState.DOWN, self.reason)
                for scope in self._waiting:
                    scope.cancel()

    def _check(self) -> None:
        if self.state is TunnelState.DOWN:
            raise TunnelDialError(DialFault.DOWN, self.reason)

    def _become(self, state: TunnelState, reason: str) -> None:
        self.reason = reason
        if state is not self.state:
            self.state, self.since = state, trio.current_time()
            self._changed.set()
            self._changed = trio.Event()
