"""Put a proxy together from what the command line says. Imported when ``sproxy run`` runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from session_proxy.cli.daemons import Composition
from session_proxy.cli.run import SingleUpstream
from session_proxy.observability.logging import Log
from session_proxy.observability.metrics import Metrics
from session_proxy.observability.sink import LineSink
from session_proxy.outbound.transport import Services
from session_proxy.profile.loading import load_profile, single_upstream_profile
from session_proxy.profile.model import Profile
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.places import control_path, service_name, state_dir
from session_proxy.supervision.proxy import Load, ProxyDaemon
from session_proxy.supervision.service import ServiceSettings


@attrs.frozen(kw_only=True)
class ProxyComposer:
    """What the command line said: a profile's file or a single upstream, and what overrides them."""

    file: Path | None
    single: SingleUpstream | None
    listen: str | None
    name: str | None
    environ: Mapping[str, str] = attrs.field(factory=os.environ.copy, repr=False)

    def __call__(self, log: Log, sink: LineSink) -> Composition:
        """Load the profile and return its proxy, ready to run; raises `ProfileError`."""
        profile = self.load(log)
        services = Services(state_dir=state_dir(self.environ), environ=self.environ)
        return compose_proxy(profile, services, log, sink, load=self.again(profile))

    def load(self, log: Log) -> Profile:
        """Return the profile, under the name of its control socket."""

        def warn(text: str) -> None:
            log.warning("profile", message=text)

        if self.single is None:
            return self.read(warn)
        single = self.single
        profile = single_upstream_profile(
            single.instance,
            single.user,
            single.key,
            single.aws_profile,
            single.region,
            self.listen,
            environ=self.environ,
            warn=warn,
        )
        return attrs.evolve(profile, name=service_name(self.name or single.instance))

    def read(self, warn: Callable[[str], None]) -> Profile:
        """Return what the file says; *warn* gets what works, but was hardly meant."""
        profile = load_profile(
            self.file,
            environ=self.environ,
            overrides={} if self.listen is None else {"listen": self.listen},
            warn=warn,
        )
        return attrs.evolve(profile, name=service_name(self.name or profile.name))

    def again(self, profile: Profile) -> Load | None:
        """Return what reads *profile* anew from where it was found, wherever that is from here by then."""
        return None if profile.file is None else attrs.evolve(self, file=profile.file.absolute()).read


def compose_proxy(
    profile: Profile,
    services: Services,
    log: Log,
    sink: LineSink,
    *,
    vital: frozenset[str] = frozenset(),
    hidden: frozenset[str] = frozenset(),
    load: Load | None = None,
) -> Composition:
    """Return the proxy that serves *profile*, ready to run; see `HealthBoard` for *vital* and *hidden*.

    It can be reloaded where *load* reads the profile anew.
    """
    metrics = Metrics()
    lifecycle = Lifecycle()
    daemon = ProxyDaemon(profile, services, log, metrics, vital=vital, hidden=hidden, load=load)

    def is_ready() -> bool:
        return lifecycle.phase is Phase.READY and not daemon.obstacles()

    metrics.watch(
        daemon.board.health, is_ready=is_ready, dropped=lambda: sink.dropped, figures=daemon.figures
    )
    settings = ServiceSettings(
        name=profile.name,
        drain=profile.limits.drain,
        admin=None if profile.admin is None else profile.admin.listen,
        control=control_path(profile.name, services.environ),
    )
    return Composition(daemon=daemon, settings=settings, lifecycle=lifecycle)
