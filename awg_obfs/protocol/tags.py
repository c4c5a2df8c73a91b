"""I1..I5: chains of tags, each of which makes a piece of a datagram (spec, section 8).

Texts from outside may hold bytes that are not UTF-8. They are kept as Python's surrogate escapes, so that lengths
and digits can be judged on bytes as the reference does, and one invalid byte stays one character.
"""

from __future__ import annotations

import base64
import enum
import re
from collections.abc import Callable
from typing import Self

import attrs

from awg_obfs.errors import NumberError, TagChainError, TagFault, TagProblem
from awg_obfs.protocol.decimals import parse_signed
from awg_obfs.protocol.randomness import Randomness

# The largest payload of an IPv4 datagram; nothing longer can be sent.
MAX_UDP_PAYLOAD = 65507

# The reference tries to make any length. We take it at its word up to here, and not to the end of our memory.
MAX_GENERATED = 16 * 1024 * 1024

CLOCK_LENGTH = 4
COUNTER_LENGTH = 4

# What Go's unicode.IsSpace says. Python's str.split() also splits at U+001C to U+001F.
_FIELD = re.compile("[^\t\n\v\f\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_HEX = re.compile(rb"[0-9A-Fa-f]*")
_ESCAPED = re.compile("[\udc80-\udcff]")

_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# One byte makes one character: the bias of the modulo is the reference's.
_TO_DIGIT = bytes(b"0123456789"[byte % 10] for byte in range(256))
_TO_LETTER = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))


class TagKind(enum.StrEnum):
    """The tags, by their keys."""

    BYTES = "b"
    CLOCK = "t"
    RANDOM = "r"
    DIGITS = "rd"
    LETTERS = "rc"
    DATA = "d"
    DATA_STRING = "ds"
    DATA_SIZE = "dz"
    COUNTER = "c"
    """Described by the reference's README, refused by its code, and offered here."""


COUNTED = frozenset({TagKind.RANDOM, TagKind.DIGITS, TagKind.LETTERS, TagKind.DATA_SIZE})
"""The tags whose argument is a length."""

DRAWN = frozenset({TagKind.RANDOM, TagKind.DIGITS, TagKind.LETTERS})
"""The tags that are drawn from the random stream."""


@attrs.frozen
class Tag:
    """One tag: *literal* are the bytes of ``<b>``, *count* is the N of those that have one."""

    kind: TagKind
    literal: bytes = b""
    count: int = 0

    def length(self, data_length: int = 0) -> int:
        """Return how many bytes the tag makes where the packet carries *data_length* bytes of data."""
        match self.kind:
            case TagKind.BYTES:
                return len(self.literal)
            case TagKind.CLOCK | TagKind.COUNTER:
                return CLOCK_LENGTH
            case TagKind.DATA:
                return data_length
            case TagKind.DATA_STRING:
                return (data_length * 8 + 5) // 6
            case _:
                return self.count

    def generate(self, random: Randomness, unix_time: Callable[[], int], counter: int, data: bytes) -> bytes:
        """Return the bytes that the tag makes this time."""
        match self.kind:
            case TagKind.BYTES:
                return self.literal
            case TagKind.CLOCK:
                return (unix_time() & 0xFFFFFFFF).to_bytes(CLOCK_LENGTH, "big")
            case TagKind.COUNTER:
                return (counter & 0xFFFFFFFF).to_bytes(COUNTER_LENGTH, "big")
            case TagKind.DATA:
                return data
            case TagKind.DATA_STRING:
                return base64.b64encode(data).rstrip(b"=")
            case TagKind.DATA_SIZE:
                return (len(data) & ((1 << 8 * self.count) - 1)).to_bytes(self.count, "big")
            case TagKind.RANDOM | TagKind.DIGITS | TagKind.LETTERS:
                if self.count == 0:
                    return b""
                drawn = random(self.count)
                if self.kind is TagKind.RANDOM:
                    return drawn
                return drawn.translate(_TO_DIGIT if self.kind is TagKind.DIGITS else _TO_LETTER)

    def __str__(self) -> str:
        if self.kind is TagKind.BYTES:
            return f"<b 0x{self.literal.hex()}>"
        return f"<{self.kind} {self.count}>" if self.kind in COUNTED else f"<{self.kind}>"


@attrs.frozen
class TagChain:
    """The recipe of one signature packet; *text* is what was configured, to the letter."""

    text: str
    tags: tuple[Tag, ...]

    @classmethod
    def parse(cls, source: str | bytes, *, strict: bool = False) -> Self:
        """Return the chain that *source* describes. Text outside tags is ignored.

        With *strict*, what the reference accepts is accepted, and nothing else: no ``<c>``, but lengths that crash
        it later. Without, ``<c>`` is a tag and lengths must be such that a datagram can have.

        Raises:
          TagChainError: at least one tag is faulty; it lists all of them.

        """
        text = source.decode("utf-8", "surrogateescape") if isinstance(source, bytes) else source
        tags: list[Tag] = []
        problems: list[TagProblem] = []
        end = -1
        while (start := text.find("<", end + 1)) >= 0:
            end = text.find(">", start)
            if end < 0:
                # It replaces whatever was found before.
                raise TagChainError((TagProblem(TagFault.UNCLOSED),))
            fields = _FIELD.findall(text, start + 1, end)
            parsed = _tag(fields, strict=strict)
            if isinstance(parsed, Tag):
                tags.append(parsed)
            else:
                problems.append(parsed)
        chain = cls(text, tuple(tags))
        if not problems and not strict and chain.length > MAX_UDP_PAYLOAD:
            problems.append(TagProblem(TagFault.TOO_LONG))
        if problems:
            raise TagChainError(problems)
        return chain

    @property
    def length(self) -> int:
        """How many bytes the packet has; it carries no data."""
        return sum(tag.length() for tag in self.tags)

    @property
    def normalised(self) -> str:
        """The shortest text that means the same."""
        return "".join(str(tag) for tag in self.tags)

    @property
    def drawn(self) -> bool:
        """Whether every byte of the packet is random, so that it is nobody's signature."""
        return self.length > 0 and all(tag.kind in DRAWN for tag in self.tags if tag.length())

    def generate(
        self, random: Randomness, unix_time: Callable[[], int], counter: int = 0, *, data: bytes = b""
    ) -> bytes:
        """Return a packet.

        *unix_time* is asked once for each ``<t>``, in seconds; *counter* is what ``<c>`` shows: how many datagrams
        this device has sent so far. *data* is for the tags that no signature packet has a use for.

        Raises:
          ValueError: a length is negative or absurd, which only strict parsing lets through. The reference panics.

        """
        if any(not 0 <= tag.count <= MAX_GENERATED for tag in self.tags):
            raise ValueError("no packet has such a length")
        return b"".join(tag.generate(random, unix_time, counter, data) for tag in self.tags)

    def __str__(self) -> str:
        return self.text


def _tag(fields: list[str], *, strict: bool) -> Tag | TagProblem:
    if not fields:
        return TagProblem(TagFault.EMPTY)
    key, argument = fields[0], fields[1] if len(fields) > 1 else ""
    # An invalid byte is shown as Go shows it.
    shown_key, shown_argument = (_ESCAPED.sub("\ufffd", text) for text in (key, argument))
    try:
        kind = TagKind(key)
    except ValueError:
        return TagProblem(TagFault.UNKNOWN, shown_key)
    if kind is TagKind.COUNTER and strict:
        return TagProblem(TagFault.UNKNOWN, shown_key)
    if kind is TagKind.BYTES:
        return _bytes(argument)
    if kind not in COUNTED:
        return Tag(kind)
    try:
        count = parse_signed(argument)
    except NumberError as exc:
        return TagProblem(TagFault(exc.fault), key, shown_argument)
    if not strict and count < 0:
        return TagProblem(TagFault.NEGATIVE, key, shown_argument)
    if not strict and count > MAX_UDP_PAYLOAD:
        return TagProblem(TagFault.TOO_LONG, key, shown_argument)
    return Tag(kind, count=count)


def _bytes(argument: str) -> Tag | TagProblem:
    digits = argument.removeprefix("0x").encode("utf-8", "surrogateescape")
    if not digits:
        return TagProblem(TagFault.EMPTY_HEX, "b")
    if len(digits) % 2:
        return TagProblem(TagFault.ODD_HEX, "b")
    # bytes.fromhex would skip blanks.
    if not _HEX.fullmatch(digits):
        return TagProblem(TagFault.BAD_HEX, "b")
    return Tag(TagKind.BYTES, bytes.fromhex(digits.decode("ascii")))
