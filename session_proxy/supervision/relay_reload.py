"""What of ``relay.toml`` may change while its server runs: whom it lets in, and how much of it they may have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import trio

from session_proxy.errors import ExitCode, ReloadError
from session_proxy.observability.logging import Log
from session_proxy.policy.changes import Changes
from session_proxy.profile.loading import Warn
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_keys import verifier_of
from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision.reload import read_anew, settings_that_change
from tunnel_relay.protocol.tokens import TokenKeyError, Verifier

# All else is held open, or is being used by what goes on: a restart behind a balancer loses no stream, either.
CHANGEABLE = frozenset(
    {
        "profile",
        "trusted_proxies",
        "proxy_protocol",
        "jwt",
        "admin",
        "metrics_token",
        "tiers",
        "users",
        "pool",
        "breaker",
        "limits",
    }
)
FIXED = frozenset({"jwt.revoked"})

# No keys of the file.
APART = frozenset({"file", "name", "state"})


@attrs.frozen
class RelayFile:
    """A file that may be taken over: what it says, what verifies its tokens, and what is new in it."""

    server: RelayServer
    verifier: Verifier
    changes: Changes


class Adopting(Protocol):
    """Who serves a file, and may serve another."""

    def adopt(self, read: RelayFile) -> Sequence[ListenAddress]:
        """Serve what was *read* from now on; return the addresses that are listened on."""
        ...


@attrs.frozen
class RelayChange:
    """A file that is ready to be taken over; see `session_proxy.supervision.reload.Change`."""

    daemon: Adopting
    read: RelayFile

    @property
    def changes(self) -> Changes:
        """What differs."""
        return self.read.changes

    @property
    def admin(self) -> ListenAddress | None:
        """Where the admin pages are to be."""
        admin = self.read.server.admin
        return None if admin is None else admin.listen

    @property
    def drain(self) -> float:
        """How long the service may take to end, in seconds."""
        return self.read.server.limits.drain

    def commit(self) -> Sequence[ListenAddress]:
        """Take it over."""
        return self.daemon.adopt(self.read)


async def read_relay(old: RelayServer, load: Callable[[Warn], RelayServer], log: Log) -> RelayFile:
    """Return what *load* says now, and what of it differs from *old*; warnings go to the log.

    Raises:
      ReloadError: some of it cannot be taken over.
      ProfileError: the file is wrong.

    """
    server = await read_anew(load, log)
    changes = compare_relays(old, server)
    try:
        verifier = await trio.to_thread.run_sync(verifier_of, server.jwt)
    except (TokenKeyError, ValueError) as exc:
        raise ReloadError(f"jwt.keys: {exc}", ExitCode.CONFIGURATION) from exc
    return RelayFile(server, verifier, changes)


def compare_relays(old: RelayServer, new: RelayServer) -> Changes:
    """Return what *new* has otherwise than *old*.

    Raises:
      ReloadError: some of it cannot change while the server runs; so it is with `users` where there were none.

    """
    roots = CHANGEABLE if old.users else CHANGEABLE - {"users"}

    def changeable(key: str) -> bool:
        return key not in FIXED and key.partition(".")[0] in roots

    return Changes(settings=settings_that_change(old, new, changeable, APART, "server"))
