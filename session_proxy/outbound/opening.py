"""Open the upstreams of a profile: one transport per kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from session_proxy.errors import SessionProxyError, UpstreamStartError
from session_proxy.outbound.background import open_background
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.transport import Services, Transport
from session_proxy.policy.rules import DIRECT
from session_proxy.profile.model import Profile, Startup, Upstream


def open_transport(
    name: str, upstream: Upstream, services: Services
) -> AbstractAsyncContextManager[Transport]:
    """Open *upstream*, which the profile calls *name*, for the length of a block.

    Yields when the transport is usable, or at once where ``startup`` is ``"background"``.

    Raises:
      SessionProxyError: it does not work, and ``startup`` is not ``"background"``.

    """
    raise UpstreamStartError(name, f"kind {upstream.kind} is not there yet")


def startup_of(profile: Profile, name: str) -> Startup:
    """Return whether the start of the proxy waits for the upstream *name*.

    Where the profile does not say, it does, unless every route that names the upstream names another way too.
    """
    if (said := profile.upstreams[name].startup) is not None:
        return said
    routes = [route for route in profile.routes if name in route.upstream]
    spare = routes and profile.default != name and all(len(route.upstream) > 1 for route in routes)
    return "background" if spare else "required"


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
                resolved = attrs.evolve(upstream, startup=startup_of(profile, name))
                starting.start_soon(nursery.start, hold, name, resolved)
        if failures:
            raise failures[0]
        yield {DIRECT: DirectTransport(services), **{name: opened[name] for name in profile.upstreams}}
