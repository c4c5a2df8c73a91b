"""Read a message that may not be there completely yet."""

from __future__ import annotations

import attrs


class NeedMoreError(Exception):
    """The message goes on beyond the bytes that have arrived; never leaves the parsers."""


@attrs.define(eq=False)
class Cursor:
    """A position in untrusted bytes; reading past their end raises `NeedMoreError`."""

    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        """Return the next *count* bytes."""
        end = self.at + count
        if end > len(self.data):
            raise NeedMoreError
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def byte(self) -> int:
        """Return the next byte as a number."""
        return self.take(1)[0]

    def take_until_null(self) -> bytes:
        """Return the bytes before the next null byte, and step over that."""
        end = self.data.find(0, self.at)
        if end < 0:
            raise NeedMoreError
        piece = self.data[self.at : end]
        self.at = end + 1
        return piece
