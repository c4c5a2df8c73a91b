"""``kind = "ssh"``: a bastion reached by SSH over plain TCP."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from session_proxy.errors import DialError
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.ssh_link import SshLink
from session_proxy.outbound.ssh_login import SshLogin, failed_login
from session_proxy.outbound.ssh_pool import PoolTransport, open_pool
from session_proxy.outbound.transport import Services
from session_proxy.profile.model import SshUpstream
from session_proxy.target import Target
from tunnel_relay.errors import SshError
from tunnel_relay.ssh.hostkeys import known_host_name

# One TCP connection carries as much as the network does, so striping would gain nothing.
SESSIONS = 1


@attrs.frozen(eq=False)
class SshSource:
    """A `LinkSource` of SSH sessions to one bastion."""

    address: Target
    login: SshLogin
    direct: DirectTransport

    @property
    def entries(self) -> tuple[str, ...]:
        """See `LinkSource.entries`."""
        return (str(self.address),)

    async def resolve(self, entry: str) -> tuple[str, ...]:
        """See `LinkSource.resolve`: a bastion stands for itself."""
        await trio.lowlevel.checkpoint()
        return (entry,)

    @asynccontextmanager
    async def connect(self, instance: str) -> AsyncGenerator[SshLink, None]:
        """See `LinkSource.connect`; there is but one *instance*."""
        del instance
        try:
            await self.login.identities()
            async with await self.dial() as stream, self.log_in(stream) as link:
                yield link
        except DialError as exc:
            raise LinkFailedError(f"cannot be reached: {exc}") from exc
        except SshError as exc:
            raise failed_login(exc) from exc

    async def dial(self) -> trio.SocketStream:
        """Return a TCP connection to the bastion; raises `DialError`."""
        plain = await self.direct.connect_tcp(self.address)
        # The SSH session knows how to use Trio's own socket streams fastest.
        return trio.SocketStream(trio.socket.from_stdlib_socket(plain.socket))

    @asynccontextmanager
    async def log_in(self, stream: trio.abc.Stream) -> AsyncGenerator[SshLink, None]:
        """Log in over *stream* for the length of a block; raises `SshError`."""
        host = known_host_name(self.address.host, self.address.port)
        async with self.login.open_link(stream, host, await self.login.identities()) as link:
            yield link


@asynccontextmanager
async def open_ssh_transport(
    name: str, upstream: SshUpstream, services: Services
) -> AsyncGenerator[PoolTransport, None]:
    """Keep an SSH session to a bastion up for the length of a block."""
    source = SshSource(upstream.address, SshLogin(name, upstream.ssh, services), DirectTransport(services))
    async with open_pool(
        name, source, sessions=SESSIONS, required=upstream.startup != "background", services=services
    ) as transport:
        yield transport
