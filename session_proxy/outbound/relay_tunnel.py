"""A tunnel to an agent for a command that wants nothing else of a profile's upstreams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from session_proxy.errors import ExitCode, UpstreamStartError
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.relay_dialing import SecretTokens, dial_settings
from session_proxy.profile.relay_choice import RelayChoice
from tunnel_relay.category import Category
from tunnel_relay.client.service import TunnelEvent, TunnelService, TunnelSettings, open_tunnel_service
from tunnel_relay.errors import TunnelUnavailableError
from tunnel_relay.protocol.greetings import Mode

EXIT_CODES: Mapping[Category, ExitCode] = {
    Category.AUTHENTICATION: ExitCode.NOT_PERMITTED,
    Category.CONFIGURATION: ExitCode.CONFIGURATION,
}


def ignore(_event: TunnelEvent) -> None:
    """Be told what happens, and do nothing."""


@attrs.frozen(eq=False)
class RelayTunnel:
    """A tunnel, and what people call it."""

    name: str
    service: TunnelService

    async def connect(self, *, patient: bool = False) -> None:
        """See `TunnelService.connect`.

        Raises:
          UpstreamStartError: there is no way to the agent.

        """
        try:
            await self.service.connect(patient=patient)
        except TunnelUnavailableError as exc:
            code = EXIT_CODES.get(exc.category, ExitCode.UNREACHABLE)
            raise UpstreamStartError(self.name, str(exc), code) from exc


@asynccontextmanager
async def open_relay_tunnel(
    choice: RelayChoice,
    environ: Mapping[str, str],
    *,
    mode: Mode,
    file: Path | None = None,
    notify: Callable[[TunnelEvent], None] = ignore,
) -> AsyncGenerator[RelayTunnel]:
    """Have a tunnel through the relay of *choice* for a block; *file* keeps requests of high priority.

    Raises:
      UpstreamStartError: what the upstream names cannot be used.
      StoreError: *file* cannot be used.

    """
    upstream = choice.upstream
    try:
        dial = await dial_settings(upstream.endpoints, upstream.ca, environ)
    except LinkFailedError as exc:
        raise UpstreamStartError(choice.name, str(exc), exc.exit_code) from exc
    settings = TunnelSettings(dial=dial, agent=upstream.agent or "", mode=mode, file=file)
    async with open_tunnel_service(settings, SecretTokens(upstream.token), notify=notify) as service:
        yield RelayTunnel(choice.name, service)
