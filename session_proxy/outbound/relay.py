"""``kind = "relay"``: SSH to a machine that can only dial out, through a relay server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from session_proxy.errors import ExitCode, UpstreamStartError
from session_proxy.outbound.transport import Services, Transport
from session_proxy.profile.model import RelayUpstream


def open_relay_transport(
    name: str, upstream: RelayUpstream, services: Services
) -> AbstractAsyncContextManager[Transport]:
    """Open *upstream*, which the profile calls *name*, for the length of a block.

    Raises:
      UpstreamStartError: always, for now.

    """
    del upstream, services
    raise UpstreamStartError(name, "relays are not built in this version", ExitCode.CONFIGURATION)
