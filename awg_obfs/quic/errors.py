"""Why a QUIC connection or one of its streams ended.

trio.BrokenResourceError
    StreamResetError            the peer gave up one direction of a stream; carries its code
    ConnectionLostError         the connection ended under the stream; carries a `ConnectionFailure`
"""

from __future__ import annotations

import enum

import attrs
import trio


class Cause(enum.StrEnum):
    """What ended a connection."""

    CLOSED = "closed here"
    PEER_CLOSED = "closed by the peer"
    IDLE = "nothing heard from the peer"
    FORGOTTEN = "the peer no longer knows the connection"
    REPLACED = "the client began another connection"
    PROTOCOL = "QUIC went wrong"


@attrs.frozen
class ConnectionFailure:
    """Why a connection is over: its cause, and the code and words that were exchanged, if any."""

    cause: Cause
    code: int = 0
    reason: str = ""

    def __str__(self) -> str:
        detail = f"{self.reason} (code {self.code:#x})" if self.reason else f"code {self.code:#x}"
        return f"{self.cause}: {detail}" if self.code or self.reason else str(self.cause)


class StreamResetError(trio.BrokenResourceError):
    """The peer gave up this direction of the stream, and said so by *code*."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the peer reset the stream with code {code:#x}")


class ConnectionLostError(trio.BrokenResourceError):
    """The QUIC connection ended before the stream did."""

    def __init__(self, failure: ConnectionFailure) -> None:
        self.failure = failure
        super().__init__(str(failure))
