"""The data types that SSH messages are made of (RFC 4251, section 5), and text from a peer made harmless."""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Iterable

_UINT32 = struct.Struct(">I")

# A reason or banner is shown on one line of a log; nobody reads more.
MAX_TEXT = 500


class FieldError(ValueError):
    """A message is shorter than its own fields say."""


def uint32(value: int) -> bytes:
    """Return *value* as four bytes."""
    return _UINT32.pack(value)


def string(value: bytes) -> bytes:
    """Return *value* with its length before it."""
    return _UINT32.pack(len(value)) + value


def name_list(names: Iterable[str]) -> bytes:
    """Return *names* as one comma-separated string."""
    return string(",".join(names).encode("ascii"))


class Fields:
    """Reads the fields of one message, in order.

    Every method raises `FieldError` where the message ends too early.
    """

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._data = data
        self._offset = offset

    def take(self, length: int) -> bytes:
        """Return the next *length* bytes."""
        end = self._offset + length
        if end > len(self._data):
            raise FieldError(f"a field of {length} bytes does not fit into the message")
        taken = self._data[self._offset : end]
        self._offset = end
        return taken

    def byte(self) -> int:
        """Return one byte."""
        return self.take(1)[0]

    def boolean(self) -> bool:
        """Return one byte as true or false; every non-zero value is true."""
        return self.byte() != 0

    def uint32(self) -> int:
        """Return a 32-bit number."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Return a length-prefixed string."""
        return self.take(self.uint32())

    def text(self) -> str:
        """Return a length-prefixed string as clean text."""
        return clean_text(self.string())

    def names(self) -> tuple[str, ...]:
        """Return a name-list."""
        raw = self.string().decode("ascii", "replace")
        return tuple(raw.split(",")) if raw else ()

    def rest(self) -> bytes:
        """Return what has not been read, without reading it."""
        return self._data[self._offset :]


def clean_text(raw: bytes, limit: int = MAX_TEXT) -> str:
    """Return a peer's text on one line, without anything that a terminal would act upon.

    Control and format characters (escape sequences, direction overrides) become spaces; RFC 4251,
    section 9.2 asks for that. What is longer than *limit* characters is cut.
    """
    # Four bytes are the longest character: no need to decode a megabyte in order to show a line.
    text = raw[: 4 * limit].decode("utf-8", "replace")
    shown = "".join(" " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in text)
    line = " ".join(shown.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
