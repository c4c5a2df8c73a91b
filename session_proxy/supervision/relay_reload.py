"""What of ``relay.toml`` may change while its server runs: whom it lets in, and how much of it they may have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from session_proxy.policy.changes import Changes
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision.reload import settings_that_change
from tunnel_relay.protocol.tokens import Verifier

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


class Adopting(Protocol):
    """Who serves a file, and may serve another."""

    def adopt(self, server: RelayServer, verifier: Verifier, changes: Changes) -> Sequence[ListenAddress]:
        """Serve *server* from now on; return the addresses that are listened on."""
        ...


@attrs.frozen
class RelayChange:
    """A file that is ready to be taken over; see `session_proxy.supervision.reload.Change`."""

    daemon: Adopting
    server: RelayServer
    verifier: Verifier
    changes: Changes

    @property
    def admin(self) -> ListenAddress | None:
        """Where the admin pages are to be."""
        return None if self.server.admin is None else self.server.admin.listen

    @property
    def drain(self) -> float:
        """How long the service may take to end, in seconds."""
        return self.server.limits.drain

    def commit(self) -> Sequence[ListenAddress]:
        """Take it over."""
        return self.daemon.adopt(self.server, self.verifier, self.changes)


def compare_relays(old: RelayServer, new: RelayServer) -> Changes:
    """Return what *new* has otherwise than *old*.

    Raises:
      ReloadError: some of it cannot change while the server runs; so it is with `users` where there were none.

    """
    roots = CHANGEABLE if old.users else CHANGEABLE - {"users"}

    def changeable(key: str) -> bool:
        return key not in FIXED and key.partition(".")[0] in roots

    return Changes(settings=settings_that_change(old, new, changeable, APART, "server"))
