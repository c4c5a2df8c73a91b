"""An audit log that shows where it was changed: JSON lines, each of which carries the SHA-256 of the one before.

    {"number":2,"previous":"<SHA-256 of line 1>","timestamp":…,"action":…,"sha256":"<SHA-256 of this line up to here>"}

`previous` is over the whole line before, without its newline, as `sha256sum` computes it; the first one's is all zeros.
`sha256` is over the line's own bytes with that member left out, so that a line that was altered is known by itself.

The chain has no secret. Whoever can write to the log can cut off its end, or write all of it anew. Therefore note the
*head* now and then where the log's writer cannot change it: whatever came before it is proven then.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import attrs

# Characters of a text: much of it is what somebody sent who need not be a friend.
MAX_TEXT = 1024
MAX_DETAILS = 32

_START = b'{"number":'
_SEAL = re.compile(rb',"sha256":"(.{64})"\}', re.DOTALL)
_SEAL_LENGTH = len(b',"sha256":""}') + 64
_LINE = re.compile(rb'\{"number":([1-9][0-9]{0,18}),"previous":"([0-9a-f]{64})",', re.DOTALL)
_HEAD = re.compile(r"([0-9]{1,19}):([0-9a-f]{64})")

_Scalar = str | int | float | bool | None


class Action(enum.Enum):
    """What was done, or tried."""

    AUTHENTICATE = "authenticate"
    CONNECT = "connect"
    DISCONNECT = "disconnect"
    REGISTER = "register"
    LOGIN = "login"
    OPEN = "open"
    REQUEST = "request"
    RATE_LIMIT = "rate-limit"
    ERROR = "error"
    CONFIGURE = "configure"


class Result(enum.Enum):
    """What came of it."""

    SUCCESS = "success"
    FAILURE = "failure"


@attrs.frozen(kw_only=True)
class AuditEntry:
    """What is logged; texts are cut where they are too long.

    Attributes:
      time: When, in seconds of Unix time.
      action: What was done.
      result: What came of it.
      user: By whom; empty where that is not known.
      address: The IP address that it came from.
      correlation_id: What the lines of one conversation have in common.
      resource: To what it was done.
      user_agent: What the other end calls its program.
      details: Anything else.

    """

    time: float
    action: Action
    result: Result
    user: str = ""
    address: str = ""
    correlation_id: str = ""
    resource: str = ""
    user_agent: str = ""
    details: Mapping[str, _Scalar] = attrs.field(factory=dict[str, _Scalar])


@attrs.frozen
class Head:
    """Where a chain has got to: the last entry's number, and the SHA-256 of its line. ``str()`` is for noting down."""

    number: int = 0
    sha256: str = "0" * 64

    def __str__(self) -> str:
        return f"{self.number}:{self.sha256}"


def read_head(text: str) -> Head:
    """Return the head that was noted as *text*; raises `ValueError` where it is none."""
    match = _HEAD.fullmatch(text.strip())
    if match is None:
        raise ValueError("a head is written NUMBER:SHA256")
    return Head(int(match[1]), match[2])


def head_after(line: bytes) -> Head | None:
    """Return the head of a log that ends with *line*; None where that is no whole entry."""
    entry = _read(line)
    return entry.head if isinstance(entry, _Entry) else None


def append(entry: AuditEntry, after: Head) -> tuple[bytes, Head]:
    """Return the line, newline included, that says *entry*, and the head from then on."""
    values = {
        "number": after.number + 1,
        "previous": after.sha256,
        "timestamp": datetime.fromtimestamp(entry.time, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        "correlationId": entry.correlation_id[:MAX_TEXT],
        "userId": entry.user[:MAX_TEXT],
        "ipAddress": entry.address[:MAX_TEXT],
        "userAgent": entry.user_agent[:MAX_TEXT],
        "action": entry.action.value,
        "resource": entry.resource[:MAX_TEXT],
        "result": entry.result.value,
        "details": {
            key[:MAX_TEXT]: value[:MAX_TEXT] if isinstance(value, str) else value
            for key, value in list(entry.details.items())[:MAX_DETAILS]
        },
    }
    # ASCII only, so that no reader takes a character for the end of a line.
    body = json.dumps(values, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    line = b'%s,"sha256":"%s"}' % (body[:-1], hashlib.sha256(body).hexdigest().encode())
    return line + b"\n", Head(after.number + 1, _sha256(line))


class Damage(enum.Enum):
    """What is wrong with a line."""

    ALTERED = "altered"
    MISSING = "missing"
    MOVED = "moved"
    REPEATED = "repeated"
    TRUNCATED = "truncated"


@attrs.frozen
class Intact:
    """Nothing is wrong, up to *head*: note it."""

    head: Head


@attrs.frozen(kw_only=True)
class Damaged:
    """Something is wrong.

    Attributes:
      line: The first line where that shows, from 1.
      damage: What it is.
      detail: What it is, for people.
      head: Up to there nothing is wrong.

    """

    line: int
    damage: Damage
    detail: str
    head: Head


@attrs.frozen
class _Entry:
    number: int
    previous: str
    head: Head


def verify(
    lines: Iterable[bytes], *, after: Head | None = None, noted: Head | None = None
) -> Intact | Damaged:
    """Look for the first line that is not what was written.

    Args:
      lines: The log; newlines at their ends do not matter.
      after: Where the log before this one ended; None for the first one.
      noted: A head that was noted earlier; without one, neither a log that was cut off at its end nor one that was
        written anew can be told from a good one.

    """
    before, head, position = after or Head(), after or Head(), 0
    remaining = enumerate(lines, 1)
    for position, line in remaining:
        entry = _read(line)
        if isinstance(entry, Damage):
            detail = (
                f"line {position} was cut short"
                if entry is Damage.TRUNCATED
                else f"line {position} was altered, or this is no audit log"
                if position == 1
                else f"line {position} was altered"
            )
            return Damaged(line=position, damage=entry, detail=detail, head=head)
        if entry.number != head.number + 1:
            return _out_of_order(entry, position, head, remaining)
        if entry.previous != head.sha256:
            return _does_not_follow(position, before, head)
        before, head = head, entry.head
        if noted is not None and noted.number == head.number and noted != head:
            detail = f"line {position} is not the entry {head.number} that was noted: it, or a line before, was altered"
            return Damaged(line=position, damage=Damage.ALTERED, detail=detail, head=before)
    if noted is not None and noted.number > head.number:
        detail = f"the log ends with entry {head.number}: {_entries(head.number + 1, noted.number)} cut off"
        return Damaged(line=position + 1, damage=Damage.TRUNCATED, detail=detail, head=head)
    return Intact(head)


def _read(line: bytes) -> _Entry | Damage:
    line = line.removesuffix(b"\n")
    start, seal = _LINE.match(line), _SEAL.fullmatch(line[-_SEAL_LENGTH:])
    if start is not None and seal is not None:
        body = line[:-_SEAL_LENGTH] + b"}"
        if seal[1] == _sha256(body).encode():
            number = int(start[1])
            return _Entry(number, start[2].decode(), Head(number, _sha256(line)))
    begun = line.startswith(_START) or _START.startswith(line)
    return Damage.TRUNCATED if begun and seal is None else Damage.ALTERED


def _out_of_order(
    entry: _Entry, position: int, head: Head, remaining: Iterable[tuple[int, bytes]]
) -> Damaged:
    expected = head.number + 1
    if entry.number < expected:
        detail = f"line {position} has number {entry.number} again, where {expected} belongs"
        return Damaged(line=position, damage=Damage.REPEATED, detail=detail, head=head)
    for elsewhere, line in remaining:
        other = _read(line)
        if isinstance(other, _Entry) and other.number == expected:
            detail = f"line {position} has entry {entry.number}, and entry {expected} is in line {elsewhere}"
            return Damaged(line=position, damage=Damage.MOVED, detail=detail, head=head)
    detail = f"before line {position}, {_entries(expected, entry.number - 1)} missing"
    return Damaged(line=position, damage=Damage.MISSING, detail=detail, head=head)


def _does_not_follow(position: int, before: Head, head: Head) -> Damaged:
    """Blame the line before, sealed as it may be: it is not the one that was there when this one was written."""
    if before == head:
        detail = f"line {position} does not follow what is before this log"
        return Damaged(line=position, damage=Damage.ALTERED, detail=detail, head=head)
    detail = f"line {position - 1} was altered: it is not the one that line {position} follows"
    return Damaged(line=position - 1, damage=Damage.ALTERED, detail=detail, head=before)


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
