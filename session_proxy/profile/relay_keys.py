"""What verifies tokens, made of what a file says.

What signs and verifies takes long to import, and most files have nothing to do with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from session_proxy.profile.relay_model import RelayJwt
from session_proxy.profile.secret_sources import reread

if TYPE_CHECKING:
    from tunnel_relay.protocol.tokens import Key, Verifier

# So many tokens as a revocation list may name, and more.
MAX_REVOKED = 64 << 20

PEM = "-----BEGIN"


def verifier_of(jwt: RelayJwt) -> Verifier:
    """Return what verifies tokens as *jwt* says, with its keys as they are now: their file is read again.

    Raises:
      InvalidValueError: the keys cannot be read.
      TokenKeyError: they are of no use.

    """
    from tunnel_relay.protocol.tokens import Verifier

    return Verifier(read_jwt_keys(reread(jwt.keys), jwt.algorithms), jwt.audience)


def read_jwt_keys(text: str, algorithms: Sequence[str]) -> dict[str, Key]:
    """Return the keys in *text* that go with *algorithms*, by `kid`.

    Raises:
      TokenKeyError: there are none, or they cannot be told apart.

    """
    from tunnel_relay.protocol.tokens import TokenKeyError, read_keys

    if "HS256" not in algorithms and not looks_like_keys(text):
        raise TokenKeyError("this is neither a JWKS nor a key in PEM")
    if not looks_like_keys(text) and "\n" in text.strip():
        raise TokenKeyError("this is no key, and a secret is one line")
    keys = read_keys(text, algorithms)
    if text.lstrip().startswith("{"):
        # They are listed, or else there would be an error already.
        listed = cast("dict[str, list[dict[str, object]]]", json.loads(text)).get("keys", [])
        counted = Counter(str(each.get("kid", "")) for each in listed)
        if twice := next((kid for kid, count in counted.items() if count > 1 and kid in keys), None):
            raise TokenKeyError(f"two keys have the kid {twice!r}")
        if counted[""] > 1 and "" in keys:
            raise TokenKeyError("two keys have no kid")
    return keys


def looks_like_keys(text: str) -> bool:
    """Tell whether *text* is meant to be a JWKS or a key in PEM, and no secret or name of a file."""
    return text.lstrip().startswith(("{", PEM))


def read_revoked(path: Path) -> frozenset[str]:
    """Return the tokens that the file at *path* names, one a line; ``#`` begins a comment.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no text, or too long.

    """
    with path.open("rb") as file:
        content = file.read(MAX_REVOKED + 1)
    if len(content) > MAX_REVOKED:
        raise ValueError(f"is larger than {MAX_REVOKED} bytes")
    lines = (line.partition("#")[0].strip() for line in content.decode("utf-8").splitlines())
    return frozenset(filter(None, lines))
