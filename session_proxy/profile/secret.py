"""A secret that a file names; it never shows in a repr, a log or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs


@attrs.frozen(repr=False)
class Secret:
    """A password, key or token, and where it came from.

    *reference* is the variable, path or command that a person wrote, and "" for a literal. *again* reads it anew,
    where that makes sense.
    """

    source: Literal["literal", "env", "file", "command"]
    reference: str
    _value: str = attrs.field(eq=True)
    again: Callable[[], str] | None = attrs.field(default=None, eq=False)

    def reveal(self) -> str:
        """Return the secret itself, to hand it to what needs it."""
        return self._value

    def __reduce__(self) -> tuple[type[Secret], tuple[str, str, str, Callable[[], str] | None]]:
        """Let another process of ours have it."""
        return Secret, (self.source, self.reference, self._value, self.again)

    def __repr__(self) -> str:
        return f"<secret from {self.source}{f' {self.reference}' if self.reference else ''}>"
