"""``kind = "ssm-port"``: AWS Session Manager's own port forwarding, for instances without an SSH server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from session_proxy.outbound.links import LinkLostError
from session_proxy.outbound.port_pool import PortTransport, open_port_pool
from session_proxy.outbound.ssm_access import SsmAccess, failed_session
from session_proxy.outbound.transport import Services
from session_proxy.profile.model import SsmPortUpstream
from session_proxy.ssm.control import open_control
from session_proxy.ssm.errors import SsmError
from session_proxy.ssm.mux import SsmMux, open_ssm_mux
from session_proxy.target import Target

DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"


@attrs.frozen(eq=False)
class MuxLink:
    """A `PortLink` over a port forwarding session; all its streams lead to the session's own destination."""

    mux: SsmMux

    @property
    def streams(self) -> int:
        """See `Link.streams`."""
        return self.mux.streams

    @property
    def held_up(self) -> bool:
        """See `PortLink.held_up`."""
        return self.mux.held_up

    async def open(self, target: Target) -> trio.abc.Stream:
        """See `Link.open`; *target* is the one that the session was started for."""
        del target
        try:
            return await self.mux.connect()
        except (SsmError, trio.BrokenResourceError) as exc:
            raise LinkLostError(str(exc)) from exc

    async def probe(self) -> float:
        """Return at once: the handshake with the agent was the proof, and the data channel pings by itself."""
        await trio.lowlevel.checkpoint()
        return 0.0

    async def wait_lost(self) -> str:
        """See `Link.wait_lost`."""
        await self.mux.closed.wait()
        return str(self.mux.failure or "AWS ended the session")


@attrs.frozen(eq=False)
class SsmPortSource:
    """A `PortSource` of port forwarding sessions."""

    upstream: SsmPortUpstream
    access: SsmAccess

    @property
    def entries(self) -> tuple[str, ...]:
        """See `PortSource.entries`."""
        return self.upstream.instances

    async def resolve(self, entry: str) -> tuple[str, ...]:
        """See `PortSource.resolve`."""
        return await self.access.resolve(entry)

    @asynccontextmanager
    async def connect(self, instance: str, target: Target) -> AsyncGenerator[MuxLink, None]:
        """See `PortSource.connect`."""
        parameters = {"host": [target.host], "portNumber": [str(target.port)]}
        try:
            session, dialing = await self.access.start(instance, DOCUMENT, parameters)
            async with open_ssm_mux(
                session, control=self.access.control, settings=self.upstream.data_channel, dialing=dialing
            ) as mux:
                yield MuxLink(mux)
        except SsmError as exc:
            raise failed_session(exc) from exc


@asynccontextmanager
async def open_ssm_port_transport(
    name: str, upstream: SsmPortUpstream, services: Services
) -> AsyncGenerator[PortTransport, None]:
    """Offer Session Manager's port forwarding for the length of a block.

    Raises:
      LinkFailedError: the upstream is required and does not work.

    """
    async with open_control(upstream.aws, services.environ) as control:
        source = SsmPortSource(upstream, SsmAccess(name, control, services))
        required = upstream.startup != "background"
        async with open_port_pool(name, source, required=required, services=services) as transport:
            yield transport
