"""``kind = "ssm"``: SSH through AWS Session Manager."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import attrs

from session_proxy.outbound.ssh_link import SshLink
from session_proxy.outbound.ssh_login import SshLogin, failed_login
from session_proxy.outbound.ssh_pool import PoolTransport, open_pool
from session_proxy.outbound.ssm_access import SsmAccess, failed_session
from session_proxy.outbound.transport import Services
from session_proxy.profile.model import SsmUpstream
from session_proxy.ssm.control import open_control
from session_proxy.ssm.errors import SsmError
from session_proxy.ssm.stream import SsmStream, open_ssm_stream
from tunnel_relay.errors import SshError
from tunnel_relay.ssh.hostkeys import known_host_name
from tunnel_relay.ssh.keys import Identity, generate_identity
from tunnel_relay.ssh.settings import KIB, SshSettings

DOCUMENT = "AWS-StartSSHSession"

# A session delivers about 1 MB/s, so what one stream has on the way delays all others in its session: a window of
# two megabytes would be two seconds. This is a quarter of a second, and grows where the path is faster.
WINDOW = 256 * KIB

# SSH must not give up while the data channel below it is being resumed; that has its own liveness check.
PATIENCE = 30.0


@attrs.frozen(eq=False)
class SsmSource:
    """A `LinkSource` of SSH sessions, each over a Session Manager session of its own."""

    upstream: SsmUpstream
    login: SshLogin
    access: SsmAccess

    @property
    def entries(self) -> tuple[str, ...]:
        """See `LinkSource.entries`."""
        return self.upstream.instances

    async def resolve(self, entry: str) -> tuple[str, ...]:
        """See `LinkSource.resolve`."""
        return await self.access.resolve(entry)

    @asynccontextmanager
    async def connect(self, instance: str) -> AsyncGenerator[SshLink, None]:
        """See `LinkSource.connect`."""
        try:
            identities = await self.identities(instance)
            async with (
                self.open_session(instance) as stream,
                self.log_in(instance, stream, identities) as link,
            ):
                yield attrs.evolve(link, carrier=stream)
        except SsmError as exc:
            raise failed_session(exc) from exc
        except SshError as exc:
            raise failed_login(exc) from exc

    @asynccontextmanager
    async def open_session(self, instance: str) -> AsyncGenerator[SsmStream, None]:
        """Start a session to the SSH server of *instance* for the length of a block; raises `SsmError`."""
        port = self.upstream.ssh.port
        session, dialing = await self.access.start(instance, DOCUMENT, {"portNumber": [str(port)]})
        async with open_ssm_stream(
            session,
            control=self.access.control,
            settings=self.upstream.data_channel,
            port=port,
            dialing=dialing,
        ) as stream:
            yield stream

    @asynccontextmanager
    async def log_in(
        self, instance: str, stream: SsmStream, identities: Sequence[Identity]
    ) -> AsyncGenerator[SshLink, None]:
        """Log in over the *stream* of a session for the length of a block; raises `SshError`."""
        settings = SshSettings(
            keepalive_interval=PATIENCE,
            keepalive_timeout=PATIENCE + self.upstream.data_channel.resume,
            window=WINDOW,
        )
        host = known_host_name(instance, self.upstream.ssh.port)
        async with self.login.open_link(stream, host, identities, settings=settings) as link:
            yield link

    async def identities(self, instance: str) -> Sequence[Identity]:
        """Return the keys to log in to *instance* with; raises `SsmError` or `SshKeyError`."""
        if not self.login.wants_instance_connect:
            return await self.login.identities()
        # A key is good for 60 s from when it is pushed, so each link gets its own.
        identity = generate_identity("EC2 Instance Connect")
        await self.access.control.send_ssh_public_key(instance, self.login.user(), identity.public_line)
        return (identity,)


@asynccontextmanager
async def open_ssm_transport(
    name: str, upstream: SsmUpstream, services: Services
) -> AsyncGenerator[PoolTransport, None]:
    """Keep SSH sessions through Session Manager up for the length of a block.

    Raises:
      LinkFailedError: the upstream is required and does not work.

    """
    async with open_control(upstream.aws, services.environ) as control:
        source = SsmSource(
            upstream, SshLogin(name, upstream.ssh, services), SsmAccess(name, control, services)
        )
        async with open_pool(
            name,
            source,
            sessions=upstream.sessions,
            required=upstream.startup != "background",
            services=services,
        ) as transport:
            yield transport
