"""What is known about each upstream, from the first attempt to connect on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import trio

from session_proxy.events import Event, LinksChanged, UpstreamDown, UpstreamUp
from session_proxy.outbound.transport import Health, HealthState
from session_proxy.profile.model import Profile


@attrs.define(eq=False)
class HealthBoard:
    """A `Notify` that remembers the state of every upstream of *profile*.

    Those that are *hidden* are not shown: nothing can go there.
    Clients are to be kept away while an upstream does not work that the start requires, or one of *vital*.
    Transports answer for themselves once all required ones are up (`attach`); until then, what they told on
    the way there is all there is.
    """

    profile: Profile
    vital: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    links: dict[str, int] = attrs.field(factory=dict[str, int], init=False)
    _told: dict[str, Health] = attrs.field(factory=dict[str, Health], init=False)
    _ask: Callable[[], Mapping[str, Health]] | None = attrs.field(default=None, init=False)

    def __call__(self, event: Event) -> None:
        """Remember what *event* says about an upstream."""
        match event:
            case UpstreamUp():
                self._told[event.upstream] = Health(HealthState.READY, since=trio.current_time())
            case UpstreamDown():
                self._told[event.upstream] = Health(HealthState.DOWN, event.reason, trio.current_time())
            case LinksChanged():
                self.links[event.upstream] = event.links
            case _:
                pass

    def attach(self, ask: Callable[[], Mapping[str, Health]]) -> None:
        """From now on *ask* the transports."""
        self._ask = ask

    def health(self) -> Mapping[str, Health]:
        """Return the state of every upstream by name."""
        if self._ask is not None:
            return {name: health for name, health in self._ask().items() if name not in self.hidden}
        unknown = Health(HealthState.STARTING)
        return {name: self._told.get(name, unknown) for name in self.profile.upstreams}

    def is_required(self, upstream: str) -> bool:
        """Return whether clients are to be kept away while *upstream* does not work."""
        if upstream in self.vital:
            return True
        return upstream in self.profile.upstreams and self.profile.startup_of(upstream) == "required"

    def obstacles(self) -> dict[str, str]:
        """Return why required upstreams cannot be used, by name; empty where all can."""
        return {
            name: f"{health.state.value}{f': {health.reason}' if health.reason else ''}"
            for name, health in self.health().items()
            if self.is_required(name) and health.state is not HealthState.READY
        }
