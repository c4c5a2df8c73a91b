"""The relay's SSH connections to one agent's SSH server: few, shared by many streams, and made when they are needed.

Some are made before anybody needs them, where a client begins a session (`SshPool.warm`), another one where all are
busy. One that nobody uses for some time is closed; one that does not answer gets no new streams until it does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from tunnel_relay.background import open_background
from tunnel_relay.errors import ChannelRefusedError, SshDisconnectedError
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.relay_stream import StreamRefusedError
from tunnel_relay.server.refusals import refused_channel
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.session import SshSession


@attrs.frozen(kw_only=True)
class PoolSettings:
    """How many connections there are, and for how long.

    Attributes:
      most: Connections at a time.
      warm: How many there are before they are needed, and though they are not used, where the pool is `wanted`.
      busy: Streams on each of them from which another one is made (guessed: each has a process of its own at the
        agent's, so that more of them carry more).
      open: Seconds that the SSH server may take to connect to a target.
      idle: Seconds without a stream after which a connection is closed.
      check: Seconds between two questions whether it is well,
      answer: and how many it may take to say so before it gets no new streams.
      rest: Seconds after which to try again to have one more, where that has failed.

    """

    most: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    warm: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    busy: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    open: float = 10.0
    idle: float = 300.0
    check: float = 30.0
    answer: float = 10.0
    rest: float = 30.0


@attrs.define(eq=False)
class _Held:
    session: SshSession
    used_at: float
    well: bool = True
    over: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class _Attempt:
    needed: bool
    ended: trio.Event = attrs.field(factory=trio.Event)
    failure: StreamRefusedError | None = None


@attrs.define(eq=False)
class SshPool:
    """See the module.

    Attributes:
      nursery: Runs the connections.
      connect: Makes one that lasts as long as the block, or raises `StreamRefusedError`; told whether it is needed at
        once.
      wanted: Says whether somebody may want a stream soon.
      settings: How many, and for how long.

    """

    nursery: trio.Nursery
    connect: Callable[[bool], AbstractAsyncContextManager[SshSession]]
    wanted: Callable[[], bool]
    settings: PoolSettings = attrs.field(factory=PoolSettings)
    _closed: str = attrs.field(default="", init=False)
    """Why there are to be no more connections; "" while there may be."""
    _held: list[_Held] = attrs.field(factory=list[_Held], init=False)
    _attempt: _Attempt | None = attrs.field(default=None, init=False)
    _rests_until: float = attrs.field(default=0.0, init=False)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._held)

    @property
    def idle(self) -> bool:
        """Whether there is none, and none is being made."""
        return not self._held and self._attempt is None

    @property
    def streams(self) -> int:
        """How many streams they carry."""
        return sum(held.session.channels for held in self._held)

    def warm(self) -> None:
        """See to it that there are as many soon as there should be before they are needed."""
        if len(self._held) < self.settings.warm:
            self._grow(needed=False)

    def close_unused(self) -> bool:
        """Close a connection that carries no stream, for others to use; return whether there was one."""
        for held in self._held:
            if not held.session.channels:
                self._close(held)
                self._rests_until = trio.current_time() + self.settings.rest
                return True
        return False

    def close(self, detail: str) -> None:
        """Close all connections, and refuse streams from now on, for the reason *detail*."""
        self._closed = detail
        for held in list(self._held):
            self._close(held)

    async def open(self, host: str, port: int) -> SshChannel:
        """Return a stream to *port* of *host*, as the SSH server sees them.

        Raises:
          StreamRefusedError: there is none; says why.

        """
        while True:
            held = await self._place()
            held.used_at = trio.current_time()
            try:
                with trio.fail_after(self.settings.open):
                    return await held.session.open_direct_tcpip(host, port)
            except ChannelRefusedError as exc:
                raise refused_channel(exc) from exc
            except SshDisconnectedError:
                # Nothing was sent yet, so another one may carry it.
                self._drop(held)
            except trio.TooSlowError:
                detail = f"the agent's SSH server has not connected in {self.settings.open:g} s"
                raise StreamRefusedError(Reason.TIMED_OUT, detail) from None

    async def _place(self) -> _Held:
        """Return the connection that is to carry a stream: the least loaded of those that are well."""
        while True:
            if self._closed:
                raise StreamRefusedError(Reason.LIMIT, self._closed)
            well = [held for held in self._held if held.well]
            best = min(well, key=lambda held: held.session.channels, default=None)
            if best is None or best.session.channels >= self.settings.busy:
                self._grow(needed=best is None)
            if best is not None:
                return best
            if self._attempt is None:
                # There may be no more, and none of them answers: perhaps this one does.
                return min(self._held, key=lambda held: held.session.channels)
            attempt = self._attempt
            await attempt.ended.wait()
            # What is needed may come about where what only might have been does not.
            if attempt.failure is not None and (attempt.needed or attempt.failure.reason is not Reason.LIMIT):
                raise attempt.failure

    def _grow(self, *, needed: bool) -> None:
        """Make one more, where there may be one; soon after a failure, only where it is *needed*."""
        resting = trio.current_time() < self._rests_until
        if self._closed:
            return
        if self._attempt is None and len(self._held) < self.settings.most and (needed or not resting):
            self._attempt = _Attempt(needed)
            self.nursery.start_soon(self._hold, self._attempt)

    async def _hold(self, attempt: _Attempt) -> None:
        """Make a connection, and stay with it to its end."""
        try:
            async with self.connect(attempt.needed) as session:
                held = _Held(session, trio.current_time())
                if self._closed:
                    return
                self._held.append(held)
                self._settle(attempt)
                self._stay_warm()
                try:
                    async with open_background() as nursery:
                        nursery.start_soon(self._watch, held)
                        nursery.start_soon(self._wait_closed, held)
                        await held.over.wait()
                finally:
                    self._drop(held)
        except StreamRefusedError as exc:
            attempt.failure = exc
            self._rests_until = trio.current_time() + self.settings.rest
        finally:
            self._settle(attempt)
        self._stay_warm()

    def _stay_warm(self) -> None:
        if self.wanted():
            self.warm()

    def _settle(self, attempt: _Attempt) -> None:
        if self._attempt is attempt:
            self._attempt = None
            attempt.ended.set()

    def _dispensable(self) -> bool:
        """Whether there is one more than there should be."""
        return not self.wanted() or len(self._held) > self.settings.warm

    def _drop(self, held: _Held) -> None:
        if held in self._held:
            self._held.remove(held)

    def _close(self, held: _Held) -> None:
        self._drop(held)
        held.over.set()

    @staticmethod
    async def _wait_closed(held: _Held) -> None:
        await held.session.wait_closed()
        held.over.set()

    async def _watch(self, held: _Held) -> None:
        """Ask whether a connection is well, until it is or nobody uses it."""
        session, settings = held.session, self.settings
        while True:
            await trio.sleep(settings.check)
            if session.channels:
                held.used_at = trio.current_time()
            elif trio.current_time() - held.used_at >= settings.idle and self._dispensable():
                self._close(held)
                return
            try:
                with trio.move_on_after(settings.answer) as scope:
                    await session.ping()
                if scope.cancelled_caught:
                    held.well = False
                    await session.ping()
                    held.well = True
            except SshDisconnectedError:
                return
