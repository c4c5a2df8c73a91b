"""The SSH that a relay server speaks itself, as ``relay.toml`` has it: who logs in, how, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from session_proxy.errors import Problem, ProfileError
from session_proxy.observability.logging import Log
from session_proxy.observability.relay_log import Context
from session_proxy.profile.relay_model import RelayServer, RelayUser
from session_proxy.profile.relay_policy import breaker_settings_of
from tunnel_relay.background import open_background
from tunnel_relay.errors import StoreError
from tunnel_relay.policy.breaker import Breakers
from tunnel_relay.protocol.session import KIB, MIB, SessionSettings
from tunnel_relay.record import Record, RecordSettings, open_record
from tunnel_relay.server.cluster import RELAYS
from tunnel_relay.server.events import LoggedIn
from tunnel_relay.server.relay_ssh import RelaySsh, RelaySshSettings
from tunnel_relay.server.service import RelayService
from tunnel_relay.server.ssh_login import (
    LoginSettings,
    RelaySshEvent,
    SshAccount,
    SshConnected,
    SshEnded,
    SshFailed,
    login_ssh_settings,
)
from tunnel_relay.server.ssh_pool import PoolSettings
from tunnel_relay.server.switch import Port
from tunnel_relay.ssh.hostkeys import KnownHosts
from tunnel_relay.ssh.keys import key_file_warning, load_key_file

# What the file is called in which it stands what was done for whom.
RECORD = "requests.db"

# Seconds that an SSH connection may be silent for longer than a session may be without a connection.
PATIENCE = 30.0

# What clients may have waiting here is the relay's memory, for all of them: bytes of a stream, and of requests; and
# sessions with one agent.
WINDOW = 256 * KIB
REQUEST_BYTES = 8 * MIB
SESSIONS = 256


@attrs.frozen(eq=False)
class RelayLogins:
    """Finds how to log in for a user. Keys are read each time, so that one that is replaced is used from then on.

    Attributes:
      users: By name.
      log: Where is told that others can read a key.

    """

    users: Mapping[str, RelayUser]
    log: Log
    _told: set[str] = attrs.field(factory=set[str], init=False, repr=False)

    async def __call__(self, user: str, agent: str) -> SshAccount | None:
        """Return how to log in to an *agent* of *user*; raises `SshKeyError`."""
        del agent
        found = self.users.get(user)
        if found is None or found.ssh.user is None or found.ssh.key is None:
            return None
        ssh, key = found.ssh, Path(found.ssh.key)
        identities = await load_key_file(key, None if ssh.passphrase is None else ssh.passphrase.reveal)
        warning = await trio.to_thread.run_sync(key_file_warning, key)
        if warning is not None and warning not in self._told:
            self._told.add(warning)
            self.log.warning("ssh key", message=warning, userId=user)
        assert ssh.user is not None
        host_keys = KnownHosts(ssh.known_hosts, mode=ssh.host_keys)
        return SshAccount(ssh.user, identities, host_keys, ssh.compression)


def relay_ssh_settings_of(server: RelayServer) -> RelaySshSettings:
    """Return how *server* speaks SSH."""
    pool, grace = server.pool, server.limits.grace
    return RelaySshSettings(
        login=LoginSettings(ssh=login_ssh_settings(keepalive=grace + PATIENCE, compression=pool.compression)),
        pool=PoolSettings(warm=pool.warm, idle=pool.idle, check=pool.check),
        session=SessionSettings(grace=grace),
        clients=SessionSettings(grace=grace, window=WINDOW, request_bytes=REQUEST_BYTES, sessions=SESSIONS),
    )


@asynccontextmanager
async def open_relay_ssh(
    server: RelayServer, service: RelayService, log: Log
) -> AsyncGenerator[RelaySsh | None]:
    """Have *service* speak SSH itself for the length of a block, for the users that *server* has; None without any.

    Raises:
      ProfileError: what is done for them cannot be recorded.

    """
    if not server.users:
        yield None
        return
    async with AsyncExitStack() as stack:
        record: Record | None = None
        if server.state is not None:
            try:
                path = server.state / f"{server.name}-{RECORD}"
                record = await stack.enter_async_context(open_record(path, RecordSettings()))
            except (StoreError, OSError) as exc:
                problem = Problem("state", str(exc), "name a folder that is yours, with room")
                raise ProfileError(server.file, [problem]) from exc
        nursery = await stack.enter_async_context(open_background())

        def tell(event: RelaySshEvent) -> None:
            log_relay_ssh(log, event)
            login = login_of(event)
            if login is not None:
                service.notify(login)

        relay_ssh = RelaySsh(
            nursery,
            service.switch,
            service.access,
            RelayLogins(server.users, log),
            tell,
            relay_ssh_settings_of(server),
            record,
            Breakers(breaker_settings_of(server)),
        )
        service.switch.keeper = relay_ssh.keep
        if service.stay is not None:
            # Who comes to another server is led back here.
            nursery.start_soon(
                service.stay, Port(service.switch, RELAYS, agent="", instance=relay_ssh.instance)
            )
        try:
            yield relay_ssh
        finally:
            service.switch.keeper = None


def change_relay_ssh(relay_ssh: RelaySsh, server: RelayServer, log: Log) -> None:
    """Let what *server* says of users, pool and breaker hold from now on."""
    relay_ssh.change(
        RelayLogins(server.users, log), relay_ssh_settings_of(server), breaker_settings_of(server)
    )


def login_of(event: RelaySshEvent) -> LoggedIn | None:
    """Return what is to be audited of *event*; None where a connection has only ended."""
    match event:
        case SshConnected(user=user, agent=agent, login=login, host_key=key, new_host_key=new):
            return LoggedIn(user=user, agent=agent, login=login, ok=True, host_key=key, recorded=bool(new))
        case SshFailed(user=user, agent=agent, login=login, detail=detail):
            return LoggedIn(user=user, agent=agent, login=login, ok=False, detail=detail)
        case SshEnded():
            return None


def log_relay_ssh(log: Log, event: RelaySshEvent) -> None:
    """Write the line that *event* deserves."""
    match event:
        case SshConnected(user=user, agent=agent, setup=setup, new_host_key=key):
            context = Context(agent=agent, setup=round(setup, 3))
            if key:
                context["recorded"] = key
            log.info("ssh connected", message="the relay has logged in", userId=user, context=context)
        case SshEnded(user=user, agent=agent, detail=detail):
            message = detail or "nobody needed the connection any more"
            log.info("ssh ended", message=message, userId=user, context=Context(agent=agent))
        case SshFailed(user=user, agent=agent, detail=detail, opened=opened):
            context = Context(agent=agent, breaker="opened" if opened else "closed")
            log.warning("ssh failed", message=detail, userId=user, context=context)
