"""How the relay logs in to the SSH server of a user's agent: over a session of its own with the agent."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from tunnel_relay.client.reaching import Reaching
from tunnel_relay.errors import KnownHostsError, SshError, SshKeyError
from tunnel_relay.policy.breaker import Breakers, Held
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.relay_stream import StreamRefusedError, StreamResetError
from tunnel_relay.server.refusals import no_connection
from tunnel_relay.ssh.hostkeys import HostKeyPolicy
from tunnel_relay.ssh.keys import Identity
from tunnel_relay.ssh.session import SshSession, open_ssh_session
from tunnel_relay.ssh.settings import SshSettings

# What a name may have in a known_hosts file: patterns know no case, and some characters mean something there.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")

# Silence, in seconds, after which an SSH connection counts as dead: longer than a session may be without a link, whose
# streams go on afterwards.
KEEPALIVE = 150.0

KIB, MIB = 1024, 1024 * 1024


def login_ssh_settings(*, keepalive: float = KEEPALIVE, compression: bool = False) -> SshSettings:
    """Return how the relay's SSH connections behave.

    A relay has many, and streams of people who do not read: each may hold less than a client's own (guessed).
    """
    return SshSettings(
        keepalive_timeout=keepalive,
        compression=compression,
        window=256 * KIB,
        window_limit=2 * MIB,
        window_budget=32 * MIB,
    )


@attrs.frozen
class SshAccount:
    """How to log in to an agent's SSH server.

    Attributes:
      user: As whom.
      identities: With which keys, in this order.
      host_keys: Which host keys are accepted; agents are called what `host_name` says.
      compression: Whether this one's connections are to be compressed, though others are not.

    """

    user: str
    identities: Sequence[Identity] = attrs.field(repr=False)
    host_keys: HostKeyPolicy
    compression: bool = False


Accounts = Callable[[str, str], Awaitable[SshAccount | None]]
"""Says how to log in, by user and agent; None where nobody has said so. Raises `SshKeyError`."""


@attrs.frozen(kw_only=True)
class LoginSettings:
    """How to log in.

    Attributes:
      service: What agents call their SSH server.
      patience: Seconds to wait for an agent that is not connected.
      setup: Seconds that connecting and logging in may take, once it is.
      ssh: How an SSH connection behaves. It must bear to be silent while the session that carries it has no link.

    """

    service: str = "ssh"
    patience: float = 5.0
    setup: float = 15.0
    ssh: SshSettings = attrs.field(factory=login_ssh_settings)


@attrs.frozen(kw_only=True)
class SshConnected:
    """The relay has logged in to a user's agent, which took so many seconds.

    Attributes:
      login: As whom.
      host_key: The fingerprint of its host key.
      new_host_key: The same, where that was not known and has been recorded.

    """

    user: str
    agent: str
    setup: float
    login: str
    host_key: str
    new_host_key: str = ""


@attrs.frozen(kw_only=True)
class SshEnded:
    """A connection to a user's agent has ended; *detail* is empty where nobody needed it."""

    user: str
    agent: str
    detail: str


@attrs.frozen(kw_only=True)
class SshFailed:
    """There is no connection to a user's agent; *opened* says that its breaker has opened.

    *login* is as whom it was to be; "" where that is not known.
    """

    user: str
    agent: str
    detail: str
    opened: bool = False
    login: str = ""


RelaySshEvent = SshConnected | SshEnded | SshFailed


def host_name(user: str, agent: str) -> str:
    """Return what the SSH server of *user*'s agent is called in known_hosts."""
    return f"{_plain(user)}/{_plain(agent)}"


def _plain(name: str) -> str:
    return "".join(
        char if char in _PLAIN else "".join(f"%{byte:02x}" for byte in char.encode("utf8", "surrogatepass"))
        for char in name
    )


class _AwayError(Exception):
    """The agent is not connected: that says nothing of its SSH server."""


@attrs.define(eq=False)
class SshLogin:
    """Logs in to one agent of one user.

    Attributes:
      user: Whose agent it is.
      agent: Its name.
      reaching: The session with it.
      accounts: Says how to log in.
      breakers: Keep from trying what keeps failing.
      notify: Called with what happens.
      may_compress: Says whether the user may have connections compressed.
      settings: How to.

    """

    user: str
    agent: str
    reaching: Reaching
    accounts: Accounts
    breakers: Breakers
    notify: Callable[[RelaySshEvent], None]
    may_compress: Callable[[], bool]
    settings: LoginSettings = attrs.field(factory=LoginSettings)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[SshSession]:
        """Be logged in for the length of a block; where that has failed too often, don't try.

        Raises:
          StreamRefusedError: that cannot be; says why.

        """
        try:
            account = await self.accounts(self.user, self.agent)
        except SshKeyError as exc:
            raise self._failed(exc, None, opened=False) from exc
        if account is None:
            raise StreamRefusedError(
                Reason.UNREACHABLE, f"the relay knows no way to log in to the agent {self.agent!r}"
            )
        breakers, began = self.breakers, trio.current_time()
        admitted = breakers.admit(self.user, self.agent, began)
        if isinstance(admitted, Held):
            raise StreamRefusedError(
                Reason.UNREACHABLE,
                f"no SSH connection to the agent {self.agent!r} came about of late; the next attempt is made in"
                f" {math.ceil(admitted.retry_in)} s",
            )
        connected = False
        try:
            async with self._logged_in(account) as session:
                connected = True
                breakers.succeeded(admitted)
                self._tell_of(account, session, trio.current_time() - began)
                try:
                    yield session
                finally:
                    detail = str(session.close_reason or "")
                    self.notify(SshEnded(user=self.user, agent=self.agent, detail=detail))
        except _AwayError as exc:
            away = StreamRefusedError(Reason.UNREACHABLE, str(exc))
            raise self._failed(away, account, opened=False) from exc
        except KnownHostsError as exc:
            # Our own file.
            raise self._failed(exc, account, opened=False) from exc
        except (SshError, StreamRefusedError, StreamResetError) as exc:
            opened = not connected and breakers.failed(admitted, trio.current_time())
            raise self._failed(exc, account, opened=opened) from exc
        finally:
            # Of one that was counted this takes no note.
            breakers.abandoned(admitted)

    def _tell_of(self, account: SshAccount, session: SshSession, setup: float) -> None:
        key = session.host_key.fingerprint
        self.notify(
            SshConnected(
                user=self.user,
                agent=self.agent,
                setup=setup,
                login=account.user,
                host_key=key,
                new_host_key=key if session.host_key_is_new else "",
            )
        )

    def _failed(
        self,
        exc: SshError | StreamRefusedError | StreamResetError,
        account: SshAccount | None,
        *,
        opened: bool,
    ) -> StreamRefusedError:
        login = "" if account is None else account.user
        self.notify(SshFailed(user=self.user, agent=self.agent, detail=str(exc), opened=opened, login=login))
        return no_connection(self.agent, exc)

    def _ssh_settings(self, account: SshAccount) -> SshSettings:
        ssh = self.settings.ssh
        wanted = ssh.compression or account.compression
        return attrs.evolve(ssh, compression=wanted and self.may_compress())

    @asynccontextmanager
    async def _logged_in(self, account: SshAccount) -> AsyncGenerator[SshSession]:
        settings = self.settings
        with trio.move_on_after(settings.patience) as patience:
            await self.reaching.wait_ready()
        if patience.cancelled_caught:
            raise _AwayError(self.reaching.why_not or "it does not answer")
        with trio.move_on_after(settings.setup) as setup:
            async with self.reaching.open_stream(settings.service) as stream:
                await stream.wait_accepted()
                async with open_ssh_session(
                    stream,
                    user=account.user,
                    identities=account.identities,
                    host_keys=account.host_keys,
                    host=host_name(self.user, self.agent),
                    settings=self._ssh_settings(account),
                ) as session:
                    await session.ping()
                    setup.deadline = math.inf
                    yield session
        if setup.cancelled_caught and self.reaching.why_not is not None:
            raise _AwayError(self.reaching.why_not)
        if setup.cancelled_caught:
            raise StreamRefusedError(Reason.TIMED_OUT, f"not logged in within {settings.setup:g} s")
