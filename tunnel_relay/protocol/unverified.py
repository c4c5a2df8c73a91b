"""What a token says of itself, for whoever has been given it: only its relay knows whether that is true.

What signs and verifies takes long to import, and has nothing to do with it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import cast

import attrs


@attrs.frozen
class Said:
    """What a token says of itself. Only the relay knows whether it is true.

    Attributes:
      expires: Until when it holds, in seconds of Unix time; None where that is not said.
      scopes: What it may be used for.
      user: Whose it is; "" where that is not said.

    """

    expires: float | None
    scopes: frozenset[str]
    user: str = ""


def is_one_word(token: str) -> bool:
    """Return whether HTTP carries *token* as it is: whatever it may be, it has no second line, and no spaces."""
    return token.isascii() and token.isprintable() and " " not in token


def read_token(token: str) -> Said | None:
    """Return what *token* says; None where it is no JWT."""
    parts = token.split(".")
    if len(parts) != 3 or not is_one_word(token):
        return None
    try:
        values: object = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(values, Mapping):
        return None
    claims = cast("Mapping[str, object]", values)
    expires, scope, user = claims.get("exp"), claims.get("scope"), claims.get("sub")
    return Said(
        float(expires) if isinstance(expires, int | float) else None,
        frozenset(scope.split() if isinstance(scope, str) else ()),
        user if isinstance(user, str) else "",
    )
