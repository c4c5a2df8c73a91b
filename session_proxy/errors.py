"""Everything session_proxy raises on purpose.

SessionProxyError
    InvalidTargetError          a text is no HOST:PORT, or a part of it none (a ValueError too)
    ProfileError                a file that a person wrote has faults (all of them, with key paths)
    UnreadableFileError         a file that a command is given cannot be read
    ListenError                 an address cannot be listened on
        NameTakenError          a process of this name runs already
    ClientProtocolError         a client of the front door spoke nonsense, or asks for what there is not
    BadAnswerError              an origin server's answer to a forwarded HTTP request is none that can be passed on
    ControlError                no running sproxy answers on the control socket
        SeveralRunningError     more than one could be meant
    ReloadError                 a running sproxy goes on as it was, instead of taking over its file
    WorkerStartError            one of a relay server's processes does not start
    UpstreamStartError          an upstream that must work at the start does not
    OutcomeUnknownError         a request was sent, and nobody knows whether it was done
    RequestInterruptedError     a person did not wait for the response to a request
    DialError                   a destination could not be reached; the subclass says why
        RefusedError            the destination refused the connection             (final)
        NotAllowedError         a rule or the far end forbids it                   (final)
        UnreachableError        no way to the destination from there
        ResolutionError         the name has no address there
        DialTimeoutError        nobody answered in time
        TransportDownError      the upstream itself does not work now
    UdpUnsupportedError         the upstream carries no UDP
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import attrs


class ExitCode(enum.IntEnum):
    """What ``sproxy`` exits with (sysexits.h where it has a name); for a wrong command line that is Typer's 2."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 69
    NOT_PERMITTED = 77
    CONFIGURATION = 78
    INTERRUPTED = 130


class SessionProxyError(Exception):
    """Base class: catch it to catch them all. ``str()`` is one line for a person."""

    exit_code: ExitCode = ExitCode.FAILURE


class InvalidTargetError(SessionProxyError, ValueError):
    """The text is no ``HOST:PORT``; the message says why, in words for a person.

    *reason* is the message without *fix*, which says what to write where that is more than ``HOST:PORT``.
    """

    def __init__(self, reason: str, fix: str = "") -> None:
        self.reason = reason
        self.fix = fix
        super().__init__(f"{reason}; {fix}" if fix else reason)


@attrs.frozen
class Problem:
    """One fault in a file: the key's path (``upstreams.dev.ssh.key``), what is wrong, what to write instead.

    *line*, counted from 1, is known where the file could not be read as TOML or YAML at all.
    """

    path: str
    message: str
    fix: str = ""
    line: int | None = None

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text}; {self.fix}" if self.fix else text


class ProfileError(SessionProxyError):
    """A profile cannot be used; every fault found is listed in *problems*."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, file: Path | None, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(self._line(problem) for problem in problems))

    def _line(self, problem: Problem) -> str:
        if self.file is None:
            return str(problem)
        where = self.file if problem.line is None else f"{self.file}:{problem.line}"
        return f"{where}: {problem}"


class UnreadableFileError(SessionProxyError):
    """A file that a command is given cannot be read; says which, and why."""

    exit_code = ExitCode.CONFIGURATION


class ListenError(SessionProxyError):
    """An address cannot be listened on: taken, not ours, or privileged."""


class NameTakenError(ListenError):
    """A process runs under this name already: *owner* (``process 123``), with *file* where that is known."""

    def __init__(self, name: str, owner: str, file: Path | None = None) -> None:
        self.name = name
        self.owner = owner
        runs = "" if file is None else f": {file}"
        super().__init__(f'"{name}" runs already{runs} ({owner}); end it, or give this one another --name')


class ClientProtocolError(SessionProxyError):
    """A client of the front door broke its protocol, or asks for something there is not."""


class BadAnswerError(SessionProxyError):
    """An origin server gave no answer to a forwarded HTTP request, half of one, or none that can be passed on."""


class ControlError(SessionProxyError):
    """No running ``sproxy`` answers on the control socket, or it answered nonsense."""

    exit_code = ExitCode.UNREACHABLE


class SeveralRunningError(ControlError):
    """The command line does not say which of several running ``sproxy`` is meant."""

    exit_code = ExitCode.USAGE


class ReloadError(SessionProxyError):
    """A running ``sproxy`` has not taken over its file, and goes on as it was; a line for each reason."""

    def __init__(self, reason: str, exit_code: ExitCode = ExitCode.FAILURE) -> None:
        self.exit_code = exit_code
        super().__init__(reason)


class WorkerStartError(SessionProxyError):
    """One of the processes that are to serve together does not start; says why as it would itself."""

    def __init__(self, reason: str, exit_code: ExitCode) -> None:
        self.exit_code = exit_code
        super().__init__(reason)


class UpstreamStartError(SessionProxyError):
    """An upstream that must work at the start does not; the exit code is that of what went wrong."""

    def __init__(self, upstream: str, reason: str, exit_code: ExitCode = ExitCode.UNREACHABLE) -> None:
        self.upstream = upstream
        self.exit_code = exit_code
        super().__init__(f"upstream {upstream}: {reason}")


class OutcomeUnknownError(SessionProxyError):
    """A request was sent, and no response came: nobody knows whether it was done."""


class RequestInterruptedError(SessionProxyError):
    """A person did not wait for the response to a request."""

    exit_code = ExitCode.INTERRUPTED


class DialError(SessionProxyError):
    """A destination could not be reached.

    *final* says that another upstream would fare no better, so failover stops; *upstream* is the one that
    gave the answer, where it is known.
    """

    exit_code = ExitCode.UNREACHABLE
    reason: ClassVar[str] = "failed"
    final: ClassVar[bool] = False

    def __init__(self, message: str = "", *, upstream: str = "") -> None:
        self.upstream = upstream
        super().__init__(message)


class RefusedError(DialError):
    """The destination answered, and refused."""

    reason = "refused"
    final = True


class NotAllowedError(DialError):
    """A route, a policy or the far end's administrator forbids this connection."""

    exit_code = ExitCode.NOT_PERMITTED
    reason = "not-allowed"
    final = True


class UnreachableError(DialError):
    """The network out there has no way to the destination."""

    reason = "unreachable"


class ResolutionError(DialError):
    """The name has no address where it was looked up."""

    reason = "resolution"


class DialTimeoutError(DialError):
    """Nobody answered in time."""

    reason = "timeout"


class TransportDownError(DialError):
    """The upstream itself does not work now; says what broke it and what to do."""

    reason = "transport-down"


class UdpUnsupportedError(SessionProxyError):
    """This upstream carries no UDP."""

    reason: ClassVar[str] = "udp-unsupported"
