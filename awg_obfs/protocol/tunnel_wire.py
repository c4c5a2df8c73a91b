"""What is said on the streams of a tunnel: one request, one reply, then bytes. See docs/PROTOCOL.md.

A client opens a QUIC stream for every connection, and may send the first bytes of its own behind the request at once.
The numbers of address types and reply codes are SOCKS5's (RFC 1928), as far as that has them.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import struct

import attrs

from awg_obfs.errors import DialFault, WireError, shown

VERSION = 1

# A name of DNS has 253 characters at most (RFC 1035); one byte tells the length.
MAX_NAME = 255
# version, command, type, length, name, port.
MAX_REQUEST = 4 + MAX_NAME + 2
# A line for people.
MAX_DETAIL = 255
MAX_REPLY = 2 + MAX_DETAIL

_PORT = struct.Struct(">H")
_NAME = re.compile(r"[!-~]+")


class Command(enum.IntEnum):
    """What a stream is for (RFC 1928, section 4)."""

    CONNECT = 1
    ASSOCIATE = 3


class AddressType(enum.IntEnum):
    """How an address is written (RFC 1928, section 5)."""

    IPV4 = 1
    NAME = 3
    IPV6 = 4


class ReplyCode(enum.IntEnum):
    """What became of a request: SOCKS5's codes (RFC 1928, section 6), and one of our own."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    UNREACHABLE = 3
    NO_SUCH_HOST = 4
    REFUSED = 5
    TIMED_OUT = 6
    UNKNOWN_COMMAND = 7
    UNKNOWN_ADDRESS_TYPE = 8
    LIMIT = 0x81
    """Too many connections of this client. SOCKS5 has no word for it; its 1 comes closest."""


class ResetCode(enum.IntEnum):
    """Why a stream was given up; the code of its RESET_STREAM and STOP_SENDING frames."""

    CANCELLED = 0
    """Whoever used it went away, without a story to tell."""
    MALFORMED = 1
    """The request or the reply could not be read."""
    BROKEN = 2
    """The connection to the destination broke."""
    IDLE = 3
    """Nothing moved for too long."""
    STOPPING = 4
    """The server stops."""


class CloseCode(enum.IntEnum):
    """Why a whole connection was closed."""

    DONE = 0
    """The client goes."""
    STOPPING = 1
    """The server stops."""
    SESSIONS = 2
    """The server has as many clients as it may."""
    HANDSHAKE = 3
    """The client took too long to begin."""


FAULTS: dict[int, DialFault] = {
    ReplyCode.GENERAL_FAILURE: DialFault.DOWN,
    ReplyCode.NOT_ALLOWED: DialFault.NOT_ALLOWED,
    ReplyCode.UNREACHABLE: DialFault.UNREACHABLE,
    ReplyCode.NO_SUCH_HOST: DialFault.RESOLUTION,
    ReplyCode.REFUSED: DialFault.REFUSED,
    ReplyCode.TIMED_OUT: DialFault.TIMEOUT,
    ReplyCode.LIMIT: DialFault.LIMIT,
}
"""What a reply means to who asked; others are `DialFault.DOWN`."""

CODES = {fault: code for code, fault in FAULTS.items()}
"""The reply that tells of a fault."""


@attrs.frozen
class OpenRequest:
    """A client asks for a TCP connection to *host*, an address or a name, and *port*."""

    host: str
    port: int

    def encode(self) -> bytes:
        """Return the request's bytes.

        Raises:
          ValueError: there can be no such host or port.

        """
        return bytes((VERSION, Command.CONNECT)) + encode_address(self.host, self.port)


@attrs.frozen
class AssociateRequest:
    """A client asks for a UDP association, which lasts as long as the stream; its number is that of the stream."""

    def encode(self) -> bytes:
        """Return the request's bytes."""
        return bytes((VERSION, Command.ASSOCIATE))


Request = OpenRequest | AssociateRequest


@attrs.frozen
class Reply:
    """What became of a request; *detail* is a line for people, and may be empty."""

    code: int
    detail: str = ""

    def encode(self) -> bytes:
        """Return the reply's bytes; a long detail is cut."""
        detail = self.detail.encode()[:MAX_DETAIL]
        return bytes((self.code, len(detail))) + detail


def decode_request(data: bytes) -> tuple[Request, int] | None:
    """Return the request that *data* begin with, and its length; None where more is needed.

    Raises:
      WireError: it never will be one.

    """
    if not data:
        return None
    if data[0] != VERSION:
        raise WireError(
            f"the client speaks version {data[0]} of the tunnel, and this server version {VERSION}"
        )
    if len(data) < 2:
        return None
    match data[1]:
        case Command.CONNECT:
            address = decode_address(data, 2)
            if address is None:
                return None
            host, port, end = address
            return OpenRequest(host, port), end
        case Command.ASSOCIATE:
            return AssociateRequest(), 2
        case unknown:
            raise WireError(f"there is no command {unknown}")


def decode_reply(data: bytes) -> tuple[Reply, int] | None:
    """Return the reply that *data* begin with, and its length; None where more is needed."""
    if len(data) < 2 or len(data) < (end := 2 + data[1]):
        return None
    detail = data[2:end].decode(errors="replace")
    # Whatever the server says, it is one line, and moves no cursor.
    return Reply(data[0], "".join(c if c.isprintable() else "?" for c in detail)), end


def encode_address(host: str, port: int) -> bytes:
    """Return *host*, an address or a name, and *port* as they are written everywhere.

    Raises:
      ValueError: there can be no such host or port.

    """
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _encode_name(host) + _PORT.pack(port)
    if address.version == 4:
        return bytes((AddressType.IPV4,)) + address.packed + _PORT.pack(port)
    if address.scope_id is not None:
        raise ValueError(f"{shown(host)} is an address on one link of one machine")
    return bytes((AddressType.IPV6,)) + address.packed + _PORT.pack(port)


def _encode_name(name: str) -> bytes:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(f"{shown(name)} is no name that DNS could know")
    return bytes((AddressType.NAME, len(name))) + name.encode()


def decode_address(data: bytes, at: int) -> tuple[str, int, int] | None:
    """Return host, port, and where the rest begins, of an address *at* that place of *data*; None if it is cut off.

    Raises:
      WireError: there is no address.

    """
    if len(data) <= at:
        return None
    match data[at]:
        case AddressType.IPV4:
            start, size = at + 1, 4
        case AddressType.IPV6:
            start, size = at + 1, 16
        case AddressType.NAME:
            if len(data) <= at + 1:
                return None
            start, size = at + 2, data[at + 1]
        case unknown:
            raise WireError(f"there is no address type {unknown}")
    end = start + size
    if len(data) < end + 2:
        return None
    host = data[start:end]
    if data[at] == AddressType.NAME:
        text = host.decode("latin-1")
        if not _NAME.fullmatch(text):
            raise WireError("a name has characters that no name has")
    else:
        text = str(ipaddress.ip_address(host))
    return text, int(_PORT.unpack_from(data, end)[0]), end + 2
