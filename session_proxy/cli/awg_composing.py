"""Put awg's server and client together from their files. Imported when ``sproxy awg-server`` or -client runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from session_proxy.cli.daemons import Composition
from session_proxy.cli.proxying import compose_proxy
from session_proxy.observability.logging import Log
from session_proxy.observability.metrics import Metrics
from session_proxy.observability.sink import LineSink
from session_proxy.outbound.transport import Services
from session_proxy.policy.rules import DIRECT
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.awg_model import SERVER, AwgServer
from session_proxy.profile.loading import Warn
from session_proxy.profile.model import Profile
from session_proxy.supervision.awg_server import AwgServerDaemon
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.places import control_path, service_name, state_dir
from session_proxy.supervision.service import ServiceSettings


@attrs.frozen(kw_only=True)
class ClientComposer:
    """The file of a client, and what its control socket is to be called."""

    file: Path
    name: str | None
    environ: Mapping[str, str] = attrs.field(factory=os.environ.copy, repr=False)

    def __call__(self, log: Log, sink: LineSink) -> Composition:
        """Load the file and return its proxy, ready to run; raises `ProfileError`."""
        profile = self.read(_warning_to(log))
        again = attrs.evolve(self, file=self.file.absolute())
        services = Services(state_dir=state_dir(self.environ), environ=self.environ)
        # The port is served at once, whether or not the server can be reached; who asks is told.
        return compose_proxy(
            profile,
            services,
            log,
            sink,
            vital=frozenset({SERVER}),
            hidden=frozenset({DIRECT}),
            load=again.read,
        )

    def read(self, warn: Callable[[str], None]) -> Profile:
        """Return the profile that does what the file says; *warn* gets what works, but was hardly meant."""
        client = load_awg_client(self.file, environ=self.environ, warn=warn)
        return client.profile(self.file, service_name(self.name or self.file.stem))


@attrs.frozen(kw_only=True)
class ServerComposer:
    """The file of a server, and what its control socket is to be called."""

    file: Path
    name: str | None
    environ: Mapping[str, str] = attrs.field(factory=os.environ.copy, repr=False)

    def __call__(self, log: Log, sink: LineSink) -> Composition:
        """Load the file and return its server, ready to run; raises `ProfileError`."""
        server = self.load(_warning_to(log))
        again = attrs.evolve(self, file=self.file.absolute())
        metrics, lifecycle = Metrics(), Lifecycle()
        daemon = AwgServerDaemon(server, log, metrics, again.load)

        def is_ready() -> bool:
            return lifecycle.phase is Phase.READY and not daemon.obstacles()

        metrics.watch(
            dict,
            is_ready=is_ready,
            dropped=lambda: sink.dropped,
            figures=daemon.figures,
            streams=daemon.streams,
        )
        settings = ServiceSettings(
            name=server.name,
            drain=server.limits.drain,
            admin=None if server.admin is None else server.admin.listen,
            control=control_path(server.name, self.environ),
        )
        return Composition(daemon=daemon, settings=settings, lifecycle=lifecycle)

    def load(self, warn: Warn) -> AwgServer:
        """Return what the file says now; raises `ProfileError`."""
        server = load_awg_server(self.file, environ=self.environ, warn=warn)
        return attrs.evolve(
            server,
            name=service_name(self.name or server.name),
            state=server.state or state_dir(self.environ),
        )


def _warning_to(log: Log) -> Callable[[str], None]:
    return lambda text: log.warning("profile", message=text)
