"""Who may log in to the lab's SSH server: its own key for good, pushed ones for a minute; no I/O."""

from __future__ import annotations

import base64
import binascii

import attrs

# EC2 Instance Connect keeps a pushed key for 60 seconds.
PUSHED_FOR = 60.0
# A loop that pushes keys must not fill the memory: guessed.
MOST_PUSHED = 1024


class InvalidPublicKeyError(Exception):
    """The text is no public key in OpenSSH's one-line form."""


def parse_public_key(line: str) -> bytes:
    """Return the key blob (RFC 4253, section 6.6) of ``TYPE BASE64 [COMMENT]``.

    Raises:
      InvalidPublicKeyError: *line* is none.

    """
    kind, _, rest = line.strip().partition(" ")
    try:
        blob = base64.b64decode(rest.split()[0], validate=True)
    except (IndexError, binascii.Error) as exc:
        raise InvalidPublicKeyError("not a public key in OpenSSH's form") from exc
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != kind.encode():
        raise InvalidPublicKeyError(f"the key is no {kind}")
    return blob


@attrs.define(eq=False)
class AuthorizedKeys:
    """The keys that log in now; times are seconds on one clock of the caller's."""

    _permanent: set[bytes] = attrs.field(factory=set[bytes])
    _pushed: dict[tuple[str, bytes], float] = attrs.field(factory=dict[tuple[str, bytes], float])

    def add(self, line: str) -> None:
        """Let the key of *line* log in as any user, always; raises `InvalidPublicKeyError`."""
        self._permanent.add(parse_public_key(line))

    def push(self, user: str, line: str, now: float) -> None:
        """Let the key of *line* log in as *user* for a minute from *now*; raises `InvalidPublicKeyError`."""
        blob = parse_public_key(line)
        self._pushed = {key: until for key, until in self._pushed.items() if until > now}
        while len(self._pushed) >= MOST_PUSHED:
            del self._pushed[next(iter(self._pushed))]
        self._pushed[user, blob] = now + PUSHED_FOR

    def allows(self, user: str, blob: bytes, now: float) -> bool:
        """Whether the key *blob* may log in as *user*."""
        return blob in self._permanent or self._pushed.get((user, blob), now) > now
