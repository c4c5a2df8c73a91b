"""The one task that moves a connection's datagrams: it transmits, keeps time, and watches the path."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import trio

from awg_obfs.paths import DatagramPath
from awg_obfs.quic.engine import Buffer, Engine, EngineEvent, Role, Terminated
from awg_obfs.quic.errors import Cause, ConnectionFailure
from awg_obfs.quic.headers import LOWEST_FIRST_BYTE, Names, begins_connection, forgotten_connection
from awg_obfs.quic.liveness import Finding, PathWatch
from awg_obfs.quic.settings import QuicSettings

# An engine is not asked sooner than this to handle again what it has just handled.
GRANULARITY = 0.001

# QUIC's own code for it (RFC 9000, section 20.1).
_INTERNAL_ERROR = 0x01

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


class Transmitter:
    """Stands between an engine and a path.

    *deliver* is called with each event of the engine, *flushed* after each flush, which returns when to call it again
    at the latest; neither may block. An engine that raises ends its connection, and nothing else.
    """

    def __init__(
        self,
        role: Role,
        path: DatagramPath,
        engine: Engine,
        settings: QuicSettings,
        *,
        deliver: Callable[[EngineEvent], None],
        flushed: Callable[[], float],
        on_silence: Callable[[bool], None],
    ) -> None:
        self._role = role
        self._path = path
        self._engine = engine
        self._deliver = deliver
        self._flushed = flushed
        self._on_silence = on_silence
        probe_after = settings.probe_after if role is Role.CLIENT else 0.0
        self._watch = PathWatch(probe_after, settings.silent_after, trio.current_time())
        self._names = Names()
        self._poked = trio.Event()
        self._established = False
        self._handled_at = -math.inf
        self._flush_by = math.inf
        self._stopped = False
        self._broken = False

    @property
    def silent(self) -> bool:
        """Whether the path counts as dead."""
        return self._watch.silent

    def established(self) -> None:
        """From now on the peer owes us signs of life."""
        self._established = True

    def poke(self) -> None:
        """Have the engine looked at again, before long."""
        self._poked.set()

    def stop(self) -> None:
        """Send the engine's last words, and then nothing more."""
        if not self._stopped:
            self._send()
            self._stopped = True
            self.poke()

    def received(self, datagrams: Sequence[Buffer]) -> None:
        """Take what came from the peer."""
        if any(not datagram or datagram[0] < LOWEST_FIRST_BYTE for datagram in datagrams):
            datagrams = self._without_notices(datagrams)
        if self._stopped or not datagrams:
            return
        now = trio.current_time()
        self._names.learn(datagrams[0], ours=False)
        self._ask(None, self._engine.receive, datagrams, now)
        self._deliver_events()
        if self._watch.heard(now) and not self._stopped:
            self._path_returned(now)
        self.poke()

    def is_replaced_by(self, datagram: Buffer) -> bool:
        """Return whether *datagram* begins another connection than this one."""
        return (
            self._role is Role.SERVER
            and begins_connection(datagram)
            and self._names.are_strangers_to(datagram)
        )

    async def run(self) -> None:
        """Transmit and keep time until `stop`."""
        if self._role is Role.CLIENT:
            self._ask(None, self._engine.connect, trio.current_time())
        while not self._stopped:
            self._poked = trio.Event()
            self._deliver_events()
            self._flush()
            with trio.move_on_at(self._next_timer()) as waiting:
                await self._poked.wait()
                # Let everybody who was woken with us have a say before the next flush.
                await trio.lowlevel.checkpoint()
            if waiting.cancelled_caught:
                self._handle_timers(trio.current_time())

    def _flush(self) -> None:
        if not self._stopped:
            self._send()
            # An engine may fail at sending. Nobody must ask more of it before that is known.
            self._deliver_events()
        if not self._stopped:
            self._flush_by = self._flushed()

    def _ask(
        self,
        otherwise: _Answer,
        call: Callable[_Asked, _Answer],
        *args: _Asked.args,
        **kwargs: _Asked.kwargs,
    ) -> _Answer:
        """Return what the engine answers, or *otherwise* where it fails: then this connection is over."""
        if self._broken:
            return otherwise
        try:
            return call(*args, **kwargs)
        except Exception as exc:
            # Other people's code, fed by the peer: what goes wrong with one must not end the others.
            self._broken = True
            reason = f"{type(exc).__name__} in the QUIC library"
            self._deliver(Terminated(ConnectionFailure(Cause.PROTOCOL, _INTERNAL_ERROR, reason)))
            return otherwise

    def _send(self) -> None:
        datagrams = self._ask([], self._engine.datagrams_to_send, trio.current_time())
        if datagrams:
            # A server's first flight begins with a long header, and may end with a short one.
            self._names.learn(datagrams[0], ours=True)
            self._names.learn(datagrams[-1], ours=True)
            self._path.send(datagrams)

    def _deliver_events(self) -> None:
        for event in self._ask([], self._engine.take_events):
            self._deliver(event)

    def _next_timer(self) -> float:
        timer = self._ask(None, self._engine.next_timer)
        if timer is not None and timer <= self._handled_at:
            # It was handled, and is still due: the engine rounds its time, or has to wait for something else.
            timer = self._handled_at + GRANULARITY
        timers = (timer, self._watch.next_timer() if self._established else None, self._flush_by)
        return min(timer for timer in timers if timer is not None)

    def _handle_timers(self, now: float) -> None:
        timer = self._ask(None, self._engine.next_timer)
        if timer is not None and timer <= now:
            self._handled_at = now
            self._ask(None, self._engine.handle_timer, now)
            self._deliver_events()
        if self._established and not self._stopped:
            finding = self._watch.handle_timer(now)
            if finding is not Finding.NOTHING:
                self._ask(None, self._engine.revive, now)
            if finding is Finding.PROBE_AND_TELL:
                self._on_silence(True)

    def _path_returned(self, now: float) -> None:
        if self._established:
            self._ask(None, self._engine.revive, now)
        if self._watch.silent:
            self._watch.silent = False
            self._on_silence(False)

    def _without_notices(self, datagrams: Sequence[Buffer]) -> list[Buffer]:
        """Return what of *datagrams* is QUIC, having heeded what is not."""
        kept: list[Buffer] = []
        for datagram in datagrams:
            if datagram and datagram[0] >= LOWEST_FIRST_BYTE:
                kept.append(datagram)
            elif (
                self._names.peer and forgotten_connection(datagram) == self._names.peer and not self._stopped
            ):
                self._deliver(Terminated(ConnectionFailure(Cause.FORGOTTEN)))
        return kept
