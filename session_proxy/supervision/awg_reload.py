"""What of an awg-server's file may change while it runs: who may come in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import attrs

from session_proxy.policy.changes import Changes
from session_proxy.profile.awg_model import AwgPeer, AwgServer
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.reload import settings_that_change

# All else holds for everybody who is connected.
CHANGEABLE = frozenset({"peers", "admin", "conf"})

# No keys of the file.
APART = frozenset({"file", "name"})


class Adopting(Protocol):
    """Who serves a file, and may serve another."""

    def adopt(self, server: AwgServer) -> Sequence[ListenAddress]:
        """Serve *server* from now on; return the address that is listened on."""
        ...


@attrs.frozen
class AwgServerChange:
    """A file that is ready to be taken over; see `session_proxy.supervision.reload.Change`."""

    daemon: Adopting
    server: AwgServer
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
        return self.daemon.adopt(self.server)


def compare_awg_servers(old: AwgServer, new: AwgServer) -> Changes:
    """Return what *new* has otherwise than *old*, peers by their names.

    Raises:
      ReloadError: some of it cannot change while the server runs.

    """

    def changeable(key: str) -> bool:
        return key.partition(".")[0] in CHANGEABLE

    keys = settings_that_change(old, new, changeable, APART, "server")
    return Changes(
        settings=tuple(each for key in keys for each in (_peers(old, new) if key == "peers" else [key]))
    )


def _peers(old: AwgServer, new: AwgServer) -> list[str]:
    before, after = _by_name(old.peers), _by_name(new.peers)
    words = [
        *((name, "new") for name in after if name not in before),
        *((name, "changed") for name in after if name in before and before[name] != after[name]),
        *((name, "removed") for name in before if name not in after),
    ]
    # What is left is their order.
    return [f"peer {name} ({word})" for name, word in words] or ["peers"]


def _by_name(peers: Sequence[AwgPeer]) -> dict[str, AwgPeer]:
    return {peer.name: peer for peer in peers}
