"""Put a relay server together from its file. Imported when ``sproxy relay-server`` runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from session_proxy.cli.daemons import Composition
from session_proxy.observability.log_settings import LogSettings
from session_proxy.observability.logging import Log
from session_proxy.observability.sink import LineSink
from session_proxy.profile.loading import Warn
from session_proxy.profile.relay_loading import load_relay_server
from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.places import control_path, fleet_dir, service_name, state_dir
from session_proxy.supervision.relay_fleet import RelayFleet
from session_proxy.supervision.relay_server import RelayServerDaemon
from session_proxy.supervision.service import Daemon, ServiceSettings


@attrs.frozen(kw_only=True)
class RelayServerComposer:
    """The file of a relay server, what its control socket is to be called, and how workers are to log."""

    file: Path
    name: str | None
    log_settings: LogSettings = attrs.field(factory=LogSettings)
    environ: Mapping[str, str] = attrs.field(factory=os.environ.copy, repr=False)

    def __call__(self, log: Log, sink: LineSink) -> Composition:
        """Load the file and return its server, ready to run; raises `ProfileError`."""
        server = self.load(lambda text: log.warning("profile", message=text))
        lifecycle = Lifecycle()

        def is_ready() -> bool:
            return lifecycle.phase is Phase.READY and not daemon.obstacles()

        daemon: Daemon
        if server.workers > 1:
            folder = fleet_dir(server.name, self.environ)
            daemon = RelayFleet(server, log, self.log_settings, folder, self.load)
        else:
            daemon = RelayServerDaemon(server, log, lambda: sink.dropped, is_ready, self.load)
        settings = ServiceSettings(
            name=server.name,
            drain=server.limits.drain,
            admin=None if server.admin is None else server.admin.listen,
            control=control_path(server.name, self.environ),
        )
        return Composition(daemon=daemon, settings=settings, lifecycle=lifecycle)

    def load(self, warn: Warn) -> RelayServer:
        """Return what the file says now; raises `ProfileError`."""
        server = load_relay_server(self.file, environ=self.environ, warn=warn)
        return attrs.evolve(
            server,
            name=service_name(self.name or server.name),
            state=server.state or state_dir(self.environ),
        )
