"""Which kind of file somebody has named, by its keys: a profile, or that of a server, a client or an agent."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import attrs

from session_proxy.errors import Problem, ProfileError
from session_proxy.profile import shape
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.model import Profile
from session_proxy.profile.relay_model import RelayAgent, RelayServer


@attrs.frozen
class FileKind:
    """A kind of file: what it becomes, what people call it, its usual name, and the command that serves it."""

    cls: type
    words: str
    example: str
    command: str

    @property
    def keys(self) -> frozenset[str]:
        """The keys that such a file may have."""
        return frozenset(shape.keys(self.cls))

    @property
    def own_keys(self) -> frozenset[str]:
        """The keys that no other kind has."""
        return self.keys.difference(*(kind.keys for kind in KINDS if kind is not self))


PROFILE = FileKind(Profile, "a profile", "profile.toml", "sproxy run")
AWG_SERVER = FileKind(AwgServer, "the file of an awg server", "server.toml", "sproxy awg-server")
AWG_CLIENT = FileKind(AwgClient, "the file of an awg client", "client.toml", "sproxy awg-client")
RELAY_SERVER = FileKind(RelayServer, "the file of a relay server", "relay.toml", "sproxy relay-server")
RELAY_AGENT = FileKind(RelayAgent, "the file of a relay agent", "agent.toml", "sproxy relay-agent")

# Where the keys leave it open, the first is meant.
KINDS = (PROFILE, AWG_SERVER, AWG_CLIENT, RELAY_SERVER, RELAY_AGENT)


def kind_of(keys: Iterable[str]) -> FileKind:
    """Return the kind of a file with these *keys*: the one that has most of them."""
    given = frozenset(keys)
    return max(KINDS, key=lambda kind: len(kind.keys & given))


def check_kind(path: Path, keys: Iterable[str], wanted: FileKind) -> None:
    """Check that the file at *path* with these *keys* may be meant for *wanted*, though it may have faults.

    Raises:
      ProfileError: it is of another kind. It names the command for that.

    """
    given = frozenset(keys)
    found = kind_of(given)
    if wanted.own_keys & given or len(wanted.keys & given) >= len(found.keys & given):
        return
    fix = f'serve it with "{found.command} {shlex.quote(str(path))}"'
    raise ProfileError(path, [Problem("", f"is {found.words}, not {wanted.words}", fix)])
