"""Stand in for an upstream that cannot be opened before the one of the same identity is closed.

A server of kind awg knows one session for each key. Two at the same time would take it from one another.
"""

from __future__ import annotations

import attrs
import trio

from session_proxy.errors import TransportDownError
from session_proxy.outbound.transport import DatagramAssociation, Health, HealthState, Transport
from session_proxy.target import Target

WAITING = "the connections through the session before it are being finished"


@attrs.define(eq=False)
class Successor:
    """A `Transport` that waits for the one it stands for, the upstream called *name*."""

    name: str
    _transport: Transport | None = attrs.field(default=None, init=False)
    _failure: str = attrs.field(default="", init=False)
    _since: float = attrs.field(factory=trio.current_time, init=False)
    _settled: trio.Event = attrs.field(factory=trio.Event, init=False)

    def arrived(self, transport: Transport) -> None:
        """Pass on to *transport* who waits."""
        self._transport = transport
        self._settled.set()

    def failed(self, reason: str) -> None:
        """Tell who waits that there will be no transport."""
        self._failure, self._since = reason, trio.current_time()
        self._settled.set()

    async def connect_tcp(self, target: Target) -> trio.abc.Stream:
        """Connect through the transport when it is there; raises `DialError`."""
        return await (await self._wait()).connect_tcp(target)

    async def open_udp(self) -> DatagramAssociation:
        """Open an association when the transport is there."""
        return await (await self._wait()).open_udp()

    async def wait_usable(self) -> None:
        """Return at once, or raise `TransportDownError`: it is there soon, or never."""
        await trio.lowlevel.checkpoint()
        if self._failure:
            raise TransportDownError(self._failure, upstream=self.name)

    async def wait_changed(self) -> None:
        """Wait until the transport is there."""
        if self._settled.is_set():
            await trio.sleep_forever()
        await self._settled.wait()

    def health(self) -> Health:
        """Return that it is starting, and what it waits for."""
        if self._transport is not None:
            return self._transport.health()
        state = HealthState.DOWN if self._failure else HealthState.STARTING
        return Health(state, self._failure or WAITING, self._since)

    def streams(self) -> int:
        """Return 0: it carries nothing itself."""
        return 0

    async def _wait(self) -> Transport:
        await self._settled.wait()
        if self._transport is None:
            raise TransportDownError(self._failure, upstream=self.name)
        return self._transport
