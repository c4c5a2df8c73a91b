"""Put an agent together from its file. Imported when ``sproxy relay-agent`` runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from session_proxy.cli.daemons import Composition
from session_proxy.observability.logging import Log
from session_proxy.observability.sink import LineSink
from session_proxy.profile.loading import Warn
from session_proxy.profile.relay_loading import load_relay_agent
from session_proxy.profile.relay_model import RelayAgent
from session_proxy.supervision.lifecycle import Lifecycle
from session_proxy.supervision.places import control_path, service_name, state_dir
from session_proxy.supervision.relay_agent import RelayAgentDaemon
from session_proxy.supervision.service import ServiceSettings


@attrs.frozen(kw_only=True)
class RelayAgentComposer:
    """The file of an agent, and what its control socket is to be called."""

    file: Path
    name: str | None
    environ: Mapping[str, str] = attrs.field(factory=os.environ.copy, repr=False)

    def __call__(self, log: Log, sink: LineSink) -> Composition:
        """Load the file and return its agent, ready to run; raises `ProfileError`."""
        del sink
        agent = self.load(lambda text: log.warning("profile", message=text))
        again = attrs.evolve(self, file=self.file.absolute())
        settings = ServiceSettings(
            name=agent.control,
            drain=agent.limits.drain,
            admin=None if agent.admin is None else agent.admin.listen,
            control=control_path(agent.control, self.environ),
        )
        daemon = RelayAgentDaemon(agent, log, self.environ, again.load)
        return Composition(daemon=daemon, settings=settings, lifecycle=Lifecycle())

    def load(self, warn: Warn) -> RelayAgent:
        """Return what the file says now; raises `ProfileError`."""
        agent = load_relay_agent(self.file, environ=self.environ, warn=warn)
        return attrs.evolve(
            agent,
            control=service_name(self.name or agent.control),
            state=agent.state or state_dir(self.environ),
        )
