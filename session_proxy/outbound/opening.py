"""Open the upstreams of a profile: one transport per kind.

What only some kinds need (SSH, WebSockets, QUIC) takes about 0.15 s to import, and 20 MB; so it is imported where an
upstream of the kind is opened.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from session_proxy.errors import SessionProxyError, UpstreamStartError
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.transport import Services, Transport
from session_proxy.policy.rules import DIRECT
from session_proxy.profile.model import (
    AwgUpstream,
    Profile,
    RelayUpstream,
    SshUpstream,
    SsmPortUpstream,
    SsmUpstream,
    Upstream,
)
from tunnel_relay.background import open_background


def open_transport(
    name: str, upstream: Upstream, services: Services
) -> AbstractAsyncContextManager[Transport]:
    """Open *upstream*, which the profile calls *name*, for the length of a block.

    Yields when the transport is usable, or at once where ``startup`` is ``"background"``.

    Raises:
      SessionProxyError: it does not work, and ``startup`` is not ``"background"``.

    """
    match upstream:
        case SshUpstream():
            from session_proxy.outbound.ssh import open_ssh_transport

            return open_ssh_transport(name, upstream, services)
        case SsmUpstream():
            from session_proxy.outbound.ssm import open_ssm_transport

            return open_ssm_transport(name, upstream, services)
        case SsmPortUpstream():
            from session_proxy.outbound.ssm_port import open_ssm_port_transport

            return open_ssm_port_transport(name, upstream, services)
        case AwgUpstream():
            from session_proxy.outbound.awg import open_awg_transport

            return open_awg_transport(name, upstream, services)
        case RelayUpstream():
            from session_proxy.outbound.relay import open_relay_transport

            return open_relay_transport(name, upstream, services)


@asynccontextmanager
async def open_transports(
    profile: Profile, services: Services
) -> AsyncGenerator[Mapping[str, Transport], None]:
    """Open every upstream of *profile* at the same time; ``direct`` is there always.

    Raises:
      UpstreamStartError: a required upstream does not work; the first to fail ends the start.

    """
    opened: dict[str, Transport] = {}
    failures: list[UpstreamStartError] = []

    async def hold(name: str, upstream: Upstream, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with open_transport(name, upstream, services) as transport:
                opened[name] = transport
                task_status.started()
                await trio.sleep_forever()
        except SessionProxyError as exc:
            failure = UpstreamStartError(name, str(exc), exc.exit_code)
            failure.__cause__ = exc
            failures.append(failure)
            starting.cancel_scope.cancel()
            task_status.started()

    async with open_background() as nursery:
        async with trio.open_nursery() as starting:
            for name, upstream in profile.upstreams.items():
                resolved = attrs.evolve(upstream, startup=profile.startup_of(name))
                starting.start_soon(nursery.start, hold, name, resolved)
        if failures:
            raise failures[0]
        yield {DIRECT: DirectTransport(services), **{name: opened[name] for name in profile.upstreams}}
