"""The daemon of ``sproxy relay-agent``: dials out, and offers services to its user's clients."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import attrs
import trio

from session_proxy.errors import Problem, ProfileError, ReloadError
from session_proxy.observability.agent_metrics import AgentFigures, AgentMetrics
from session_proxy.observability.http import Handler
from session_proxy.observability.logging import Log
from session_proxy.observability.relay_dial_log import log_dialing
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.relay_dialing import SecretTokens, dial_settings
from session_proxy.policy.changes import Changes
from session_proxy.profile.loading import Warn
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_model import RelayAgent, RelayAgentLimits
from session_proxy.supervision.agent_reload import AgentChange, compare_agents
from session_proxy.supervision.reload import read_anew
from session_proxy.supervision.status import RelayAgentStatus
from tunnel_relay.agent.running import Agent, AgentEvent, AgentSettings, ServiceUnreached, open_agent
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.errors import StoreError
from tunnel_relay.link import LinkSettings
from tunnel_relay.protocol.session import SessionSettings

RECORD = "requests.db"

LEAVING = "the agent is being shut down"


@attrs.define(eq=False)
class RelayAgentDaemon:
    """One ``agent.toml``. Run it with `session_proxy.supervision.service.run_service`.

    Attributes:
      config: The file.
      log: Where what happens is told.
      environ: Has HTTP proxies.
      load: Reads the file anew; None where there is none.
      metrics: Of this agent.

    """

    config: RelayAgent
    log: Log
    environ: Mapping[str, str] = attrs.field(repr=False)
    load: Callable[[Warn], RelayAgent] | None = None
    metrics: AgentMetrics = attrs.field(init=False)
    _agent: Agent | None = attrs.field(default=None, init=False)
    _tokens: SecretTokens = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.metrics = AgentMetrics(self.figures)
        self._tokens = SecretTokens(self.config.token)

    async def serve(self, stop: trio.Event, *, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        """Offer services until *stop* is set, and the streams are over or time is up.

        Raises:
          ProfileError: something that the file names cannot be used.

        """
        config, limits = self.config, self.config.limits
        services = {name: str(target) for name, target in config.services.items()}
        self.log.info("starting", file=str(config.file or "-"), agent=config.name, **services)
        settings = AgentSettings(
            name=config.name,
            services=_services(config),
            dial=await self._dial_settings(),
            session=_session_settings(limits),
            connect=limits.connect,
            record=None if config.state is None else config.state / f"{config.control}-{RECORD}",
        )
        try:
            async with open_agent(
                settings,
                self._tokens,
                rng=random.SystemRandom().random,
                unix_time=time.time,
                notify=self.happened,
            ) as agent:
                self._agent = agent
                task_status.started([])
                await stop.wait()
                with trio.move_on_after(self.config.limits.drain):
                    await agent.drain(LEAVING)
                await agent.part(LEAVING)
        except (StoreError, OSError) as exc:
            problem = Problem("state", str(exc), "name a folder that is yours, with room")
            raise ProfileError(config.file, [problem]) from exc

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncGenerator[AgentChange]:
        """See `session_proxy.supervision.reload.Reloadable.prepare`.

        Raises:
          ReloadError: there is nothing to read, or what changed cannot be taken over.
          ProfileError: the file is wrong.

        """
        load = self.load
        if load is None:
            raise ReloadError("it runs without a file to read anew")
        agent = await read_anew(load, self.log)
        yield AgentChange(self, agent, compare_agents(self.config, agent))

    def adopt(self, agent: RelayAgent, changes: Changes) -> None:
        """Serve *agent* from now on: what is open goes on, though its service is not offered any more."""
        running = self._agent
        assert running is not None, "it is ready"
        limits = agent.limits
        self.config = agent
        running.change(_services(agent), _session_settings(limits), limits.connect)
        running.dialing.settings = attrs.evolve(running.dialing.settings, link=_link_settings(limits))
        if "token" in changes.settings:
            self._tokens.change(agent.token)
            running.dialing.dial_anew("the token is another one")

    async def _dial_settings(self) -> DialSettings:
        config = self.config
        try:
            return await dial_settings(
                config.endpoints, config.ca, self.environ, link=_link_settings(config.limits)
            )
        except LinkFailedError as exc:
            raise ProfileError(config.file, [Problem("ca", str(exc))]) from exc

    def happened(self, event: AgentEvent) -> None:
        """Take an event of the library."""
        if isinstance(event, ServiceUnreached):
            self.log.warning("service not reached", service=event.service, reason=event.reason)
            return
        log_dialing(self.log, event)
        self.metrics(event)

    def obstacles(self) -> Mapping[str, str]:
        """Return why clients cannot get here now."""
        agent = self._agent
        if agent is None or agent.dialing.linked:
            return {}
        return {"relay": agent.dialing.reason}

    def status(self) -> Mapping[str, object]:
        """Return a `RelayAgentStatus` as JSON values."""
        figures, agent, config = self.figures(), self._agent, self.config
        active = None if agent is None else agent.dialing.state.active
        status = RelayAgentStatus(
            file="" if config.file is None else str(config.file.absolute()),
            agent=config.name,
            relay="" if active is None else active.url,
            linked=figures.linked,
            reason="" if agent is None else agent.dialing.reason,
            seconds=0.0 if agent is None else round(trio.current_time() - agent.dialing.since, 3),
            sessions=figures.sessions,
            streams=figures.streams,
            services={name: str(target) for name, target in config.services.items()},
        )
        return attrs.asdict(status)

    def figures(self) -> AgentFigures:
        """Return the figures as they are now."""
        agent = self._agent
        if agent is None:
            return AgentFigures()
        return AgentFigures(
            linked=agent.dialing.linked,
            sessions=agent.offering.sessions,
            streams=agent.offering.streams,
            reconnections=max(agent.dialing.reconnections, 0),
        )

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        """Return nothing: there are health and metrics only."""
        return {}

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of this agent."""
        return self.metrics.render(accept)


def _services(agent: RelayAgent) -> dict[str, tuple[str, int]]:
    return {name: (target.host, target.port) for name, target in agent.services.items()}


def _session_settings(limits: RelayAgentLimits) -> SessionSettings:
    return SessionSettings(streams=limits.streams, grace=limits.grace)


def _link_settings(limits: RelayAgentLimits) -> LinkSettings:
    return LinkSettings(heartbeat=limits.heartbeat, silence=limits.silence)
