"""What the transports have in common that go through one of several instances: their health, and who waits for it."""

from __future__ import annotations

import attrs
import trio

from session_proxy.errors import TransportDownError
from session_proxy.events import Notify
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.transport import Health, HealthState
from session_proxy.policy.rotation import Rotation


@attrs.define(eq=False)
class RotatingTransport:
    """The part of a `Transport` that says how its instances fare.

    Subclasses make connections; they `_publish` what becomes of them, and look for steps to do when `_poked` is set.
    """

    name: str
    _rotation: Rotation
    _notify: Notify
    _health: Health = attrs.field(init=False)
    _failure: LinkFailedError | None = attrs.field(default=None, init=False)
    """The last one."""
    _poked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._health = Health(HealthState.STARTING, since=trio.current_time())

    def health(self) -> Health:
        """Return the state; see the subclass for what its READY means."""
        return self._health

    async def wait_usable(self) -> None:
        """Wait until the upstream is not known to be down, and have the next attempt made soon.

        Raises:
          TransportDownError: it is down for a reason that only a person can change.

        """
        while self._health.state is HealthState.DOWN:
            self._rotation.demand(trio.current_time())
            self._poked.set()
            if self._rotation.needs_person:
                self._check_not_down()
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Wait until something has changed: the state, its reason, or a detail."""
        await self._changed.wait()

    async def wait_settled(self) -> None:
        """Return when the upstream works.

        Raises:
          LinkFailedError: everything it could be reached by has failed once.

        """
        while self._health.state is not HealthState.READY:
            if self._health.state is HealthState.DOWN:
                assert self._failure is not None
                raise LinkFailedError(self._health.reason, exit_code=self._failure.exit_code)
            await self._changed.wait()

    def _check_not_down(self) -> None:
        if self._health.state is HealthState.DOWN:
            raise TransportDownError(self._health.reason, upstream=self.name)

    def _state_without_link(self, reason: str) -> tuple[HealthState, str]:
        """Return the state, and why it is that, where nothing is connected for *reason*."""
        if self._rotation.exhausted:
            return HealthState.DOWN, self._rotation.reason()
        return HealthState.STARTING, reason

    def _publish(self, state: HealthState, reason: str, details: tuple[tuple[str, str], ...]) -> None:
        """Tell everybody who waits that something has changed."""
        since = self._health.since if state is self._health.state else trio.current_time()
        self._health = Health(state, reason, since, details)
        self._changed.set()
        self._changed = trio.Event()
