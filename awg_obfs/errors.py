"""Everything awg_obfs raises on purpose.

AwgError
    NumberError                 a number in a configuration is not one; says of what kind the fault is
    HeaderRangeError            H1..H4 cannot be read
    TagChainError               I1..I5 cannot be read: every fault of the chain
    ParametersError             a set of parameters cannot be used (all faults, each with its key)
    ConfFileError               an AmneziaWG .conf cannot be read (all faults, each with its line)
    KeyFormatError              a key is not 32 bytes in base64
    NoiseError                  there can be no handshake with a public key (in protocol/noise.py)
    BindError                   there can be no socket at an address
    NarrowPathError             a path's datagrams leave QUIC too little room
    WireError                   what came through a tunnel is not what this version speaks
    TunnelDialError             a destination was not reached through a tunnel; says why
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Sequence

import attrs


class AwgError(Exception):
    """Base class: catch it to catch them all. ``str()`` is one line for a person."""


class NumberFault(enum.StrEnum):
    """Why a text is not a number: the two faults that Go's ``strconv`` tells apart."""

    SYNTAX = "int_syntax"
    RANGE = "int_range"


class NumberError(AwgError):
    """A text is not a decimal number, or one that is too large."""

    def __init__(self, text: str, fault: NumberFault) -> None:
        self.fault = fault
        if fault is NumberFault.SYNTAX:
            super().__init__(f"{shown(text)} is not a decimal number")
        else:
            super().__init__(f"{shown(text)} is too large a number")


class HeaderFault(enum.StrEnum):
    """Why a value of H1..H4 is refused."""

    TOO_MANY_DASHES = "too_many_dashes"
    NUMBER_SYNTAX = "int_syntax"
    NUMBER_RANGE = "int_range"
    END_BEFORE_START = "end_before_start"


class HeaderRangeError(AwgError):
    """A value of H1..H4 is neither a number nor a range of numbers."""

    def __init__(self, fault: HeaderFault, message: str) -> None:
        self.fault = fault
        super().__init__(message)


class TagFault(enum.StrEnum):
    """Why a tag of I1..I5 is refused."""

    UNCLOSED = "unclosed_tag"
    EMPTY = "empty_tag"
    UNKNOWN = "unknown_tag"
    EMPTY_HEX = "empty_hex"
    ODD_HEX = "odd_hex"
    BAD_HEX = "bad_hex"
    NUMBER_SYNTAX = "int_syntax"
    NUMBER_RANGE = "int_range"
    NEGATIVE = "negative"
    TOO_LONG = "too_long"


@attrs.frozen
class TagProblem:
    """One faulty tag of a chain: what is wrong, and the tag's key (empty where it has none)."""

    fault: TagFault
    key: str = ""
    argument: str = ""

    def __str__(self) -> str:
        tag = f"<{shown(self.key)[1:-1]}>"
        match self.fault:
            case TagFault.UNCLOSED:
                return 'a "<" is never closed by ">"'
            case TagFault.EMPTY:
                return "a tag is empty: <>"
            case TagFault.UNKNOWN:
                return f"there is no tag {tag}"
            case TagFault.EMPTY_HEX:
                return f"{tag} needs bytes in hex, as in <b 0x00ff>"
            case TagFault.ODD_HEX:
                return f"{tag} has an odd number of hex digits"
            case TagFault.BAD_HEX:
                return f"{tag} has a character that is no hex digit"
            case TagFault.NUMBER_SYNTAX:
                return f"{tag} needs a number, as in <{self.key} 16>, not {shown(self.argument)}"
            case TagFault.NUMBER_RANGE:
                return f"{tag} has a number out of range: {shown(self.argument)}"
            case TagFault.NEGATIVE:
                return f"{tag} has a negative length: {shown(self.argument)}"
            case TagFault.TOO_LONG if self.key:
                return f"{tag} makes more than a datagram holds, which is 65507 bytes: {shown(self.argument)}"
            case TagFault.TOO_LONG:
                return "the packet is longer than a datagram can be, which is 65507 bytes"


class TagChainError(AwgError):
    """A value of I1..I5 has faulty tags; *problems* lists them in the order of the text."""

    def __init__(self, problems: Sequence[TagProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in problems))


@attrs.frozen
class KeyProblem:
    """One fault in a set of parameters: the key, what is wrong, and what to write instead."""

    key: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.key}: {self.message}"
        return f"{text}; {self.fix}" if self.fix else text


class ParametersError(AwgError):
    """A set of parameters cannot be used; every fault found is listed in *problems*."""

    def __init__(self, problems: Sequence[KeyProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


@attrs.frozen
class LineProblem:
    """One fault in a text: its line (counted from 1), what is wrong, and what to write instead."""

    line: int
    message: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"line {self.line}: {self.message}"
        return f"{text}; {self.fix}" if self.fix else text


class ConfFileError(AwgError):
    """An AmneziaWG ``.conf`` cannot be read; every fault found is listed in *problems*."""

    def __init__(self, problems: Sequence[LineProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class KeyFormatError(AwgError):
    """A key is not 32 bytes in base64. The message never shows it."""


_BIND_HINTS = {
    errno.EADDRINUSE: "something else uses this port: stop it, or take another port",
    errno.EACCES: "ports below 1024 need root, or the capability CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EAFNOSUPPORT: "this machine has no such address",
}


class BindError(AwgError):
    """The system refuses a socket at an address; its own error is the cause, with its *errno*."""

    def __init__(self, where: str, error: OSError) -> None:
        self.errno = error.errno
        reason = _BIND_HINTS.get(error.errno or 0) or error.strerror or type(error).__name__
        super().__init__(f"cannot use UDP at {where}: {reason}")


class NarrowPathError(AwgError):
    """The datagrams of a path leave QUIC less room than it needs (RFC 9000, section 14)."""


class WireError(AwgError):
    """A peer, or a newer version of us, speaks something else: a fault, not an attack of strangers."""


class DialFault(enum.StrEnum):
    """Why a destination was not reached. Each has a reply code of its own (protocol.tunnel_wire)."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    RESOLUTION = "resolution"
    NOT_ALLOWED = "not-allowed"
    TIMEOUT = "timeout"
    LIMIT = "limit"
    DOWN = "down"
    """Not the destination's fault: the tunnel, or its server, does not work now."""


class TunnelDialError(AwgError):
    """A destination was not reached: *fault* is for programs, ``str()`` for people.

    What was sent with the request has not arrived there; where it is *uncertain*, it may have.
    """

    def __init__(self, fault: DialFault, message: str, *, uncertain: bool = False) -> None:
        self.fault = fault
        self.uncertain = uncertain
        super().__init__(message)


# Enough to recognise what one wrote; a value of 60 kB would bury the message.
LONGEST_SHOWN = 40


def shown(text: str) -> str:
    """Return *text* as an error may show it: in quotes, in one line, and not for ever."""
    quoted = ascii(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")
    return f'"{quoted[1:-1]}"'
