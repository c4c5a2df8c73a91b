"""Log in by SSH the way a profile says: which user, which keys, which host keys, and what to tell people."""

from __future__ import annotations

import getpass
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from session_proxy.errors import ExitCode
from session_proxy.events import Notice
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.ssh_link import SshLink
from session_proxy.outbound.transport import Services
from session_proxy.profile.model import INSTANCE_CONNECT, Ssh
from tunnel_relay.errors import HostKeyError, KnownHostsError, SshAuthenticationError, SshError, SshKeyError
from tunnel_relay.ssh.agent import agent_identities
from tunnel_relay.ssh.hostkeys import KnownHosts
from tunnel_relay.ssh.keys import Identity, key_file_warning, load_key_file
from tunnel_relay.ssh.session import SshSession, open_ssh_session
from tunnel_relay.ssh.settings import SshSettings

# What ssh(1) tries where nothing is said, in its order.
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


@attrs.define(eq=False)
class SshLogin:
    """How one upstream logs in. Keys are read when they are first needed, and kept."""

    upstream: str
    ssh: Ssh
    services: Services
    _identities: tuple[Identity, ...] | None = attrs.field(default=None, init=False, repr=False)
    _told: set[str] = attrs.field(factory=set[str], init=False, repr=False)

    @property
    def wants_instance_connect(self) -> bool:
        """Whether an ephemeral key is to be pushed instead of using one that exists."""
        return self.ssh.key == INSTANCE_CONNECT

    def user(self) -> str:
        """Return whom to log in as."""
        if self.ssh.user is not None:
            return self.ssh.user
        try:
            return getpass.getuser()
        except (KeyError, OSError) as exc:
            # A container's user may have no name.
            raise LinkFailedError(
                f"no user to log in as; write user under [upstreams.{self.upstream}.ssh], or give --user with"
                " --instance",
                needs_person=True,
                exit_code=ExitCode.CONFIGURATION,
            ) from exc

    async def identities(self) -> tuple[Identity, ...]:
        """Return the keys to log in with, in the order in which to offer them; raises `SshKeyError`."""
        if self._identities is None:
            if (path := self._key_file()) is not None:
                self._identities = await self._load(path)
            else:
                self._identities = await self._default_identities()
        return self._identities

    @asynccontextmanager
    async def open_link(
        self,
        stream: trio.abc.Stream,
        host: str,
        identities: Sequence[Identity],
        *,
        settings: SshSettings | None = None,
    ) -> AsyncGenerator[SshLink, None]:
        """Log in over *stream*, which is closed at the end of the block; *host* is its name in known_hosts.

        Raises:
          SshError: no login; `failed_login` says what that means for the upstream.

        """
        known_hosts = KnownHosts(self.ssh.known_hosts.expanduser(), mode=self.ssh.host_keys)
        try:
            async with open_ssh_session(
                stream,
                user=self.user(),
                identities=identities,
                host_keys=known_hosts,
                host=host,
                settings=attrs.evolve(settings or SshSettings(), compression=self.ssh.compression),
            ) as session:
                self._tell_about(session, host)
                yield SshLink(session)
        except SshAuthenticationError:
            # Perhaps the person replaces the key file: read it again next time.
            self._identities = None
            raise

    def _key_file(self) -> Path | None:
        return Path(self.ssh.key).expanduser() if self.ssh.key is not None else None

    def _tell_about(self, session: SshSession, host: str) -> None:
        if session.host_key_is_new:
            key = session.host_key
            self._tell(f"recorded the host key of {host}: {key.kind} {key.fingerprint}")
        if session.banner:
            self._tell(f"{host} says: {session.banner}")

    def _tell(self, message: str, level: str = "info") -> None:
        """Tell each thing once, however often links are made."""
        if message not in self._told:
            self._told.add(message)
            self.services.notify(Notice(self.upstream, message, level))

    async def _load(self, path: Path) -> tuple[Identity, ...]:
        secret = self.ssh.passphrase
        ask = secret.reveal if secret is not None else self.services.passphrases.asker(path)
        identities = await load_key_file(path, ask)
        # Only of what is a key is it known that others should not read it.
        if (warning := key_file_warning(path)) is not None:
            self._tell(warning, "warning")
        return identities

    async def _default_identities(self) -> tuple[Identity, ...]:
        """Return the agent's keys, then those of the default files that can be read without a passphrase."""
        found: list[Identity] = []
        problems: list[str] = []
        if socket := self.services.environ.get("SSH_AUTH_SOCK"):
            try:
                found += await agent_identities(Path(socket))
                if not found:
                    problems.append("the ssh-agent holds no key")
            except SshKeyError as exc:
                problems.append(str(exc))
        home = Path(self.services.environ.get("HOME") or Path.home())
        for path in (home / ".ssh" / name for name in DEFAULT_KEYS):
            if path.exists():
                try:
                    found += await load_key_file(path)
                except SshKeyError as exc:
                    problems.append(str(exc))
        if not found:
            raise SshKeyError(
                f"no key to log in with ({'; '.join(problems) or 'no ssh-agent, and no ~/.ssh/id_*'});"
                f" run ssh-add, write key under [upstreams.{self.upstream}.ssh], or give --key with --instance"
            )
        unique: dict[bytes, Identity] = {}
        for identity in found:
            unique.setdefault(identity.blob, identity)
        return tuple(unique.values())


def failed_login(exc: SshError) -> LinkFailedError:
    """Return what it means for an upstream that nobody could log in."""
    if isinstance(exc, SshKeyError | KnownHostsError):
        return LinkFailedError(str(exc), needs_person=True, exit_code=ExitCode.CONFIGURATION)
    if isinstance(exc, HostKeyError | SshAuthenticationError):
        return LinkFailedError(str(exc), needs_person=True, exit_code=ExitCode.NOT_PERMITTED)
    return LinkFailedError(str(exc))
