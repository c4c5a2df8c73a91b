"""The server side of SOCKS4 and SOCKS4a (the protocol memoranda of NEC, 1992, and of Y.-L. Lee).

No I/O happens here. Feed bytes to `Socks4Server.receive_data` until `next_event` returns the request, answer
it with `reply`, and send what `data_to_send` returns, also after an error.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import NoReturn

import attrs

from session_proxy.errors import ClientProtocolError, InvalidTargetError
from session_proxy.protocol.cursor import Cursor, NeedMoreError
from session_proxy.target import Target

VERSION = 4
CONNECT = 1

# The memoranda bound neither; 255 is SOCKS5's bound for both.
MAX_FIELD = 255
MAX_MESSAGE = 8 + 2 * (MAX_FIELD + 1)


class Reply(enum.IntEnum):
    """What became of a request (SOCKS4, the CD field of a reply)."""

    GRANTED = 90
    REJECTED = 91
    USER_NOT_CONFIRMED = 93


@attrs.frozen
class Socks4Connect:
    """The client, who says to be *user*, wants a connection to *target*; SOCKS4 knows no proof of it."""

    target: Target
    user: bytes


@attrs.define(eq=False)
class Socks4Server:
    """One client's request."""

    _received: bytes = attrs.field(default=b"", init=False, repr=False)
    _outgoing: bytes = attrs.field(default=b"", init=False, repr=False)
    _over: bool = attrs.field(default=False, init=False)

    def receive_data(self, data: bytes) -> None:
        """Add bytes from the client; empty *data* means that it has closed its side.

        Raises:
          ClientProtocolError: the client left in the middle of its request.

        """
        if not data:
            self._fail("the client hung up during the SOCKS4 handshake")
        self._received += data

    def next_event(self) -> Socks4Connect | None:
        """Return the request, or `None` where more bytes are needed first or it has been returned already.

        Raises:
          ClientProtocolError: the client broke the protocol or asks for what there is not; send what
            `data_to_send` returns, then close.

        """
        if self._over:
            return None
        cursor = Cursor(self._received)
        try:
            event = self._read_request(cursor)
        except NeedMoreError:
            if len(self._received) > MAX_MESSAGE:
                self._refuse("the client's SOCKS4 request is too long")
            return None
        self._over = True
        self._received = self._received[cursor.at :]
        return event

    def data_to_send(self) -> bytes:
        """Return, and forget, the bytes to send to the client."""
        data, self._outgoing = self._outgoing, b""
        return data

    def trailing_data(self) -> bytes:
        """Return, and forget, what the client sent beyond its request."""
        data, self._received = self._received, b""
        return data

    def reply(self, code: Reply) -> None:
        """Answer the request; `Reply.GRANTED` only once the connection is there."""
        self._outgoing += bytes((0, code)) + bytes(6)

    def _read_request(self, cursor: Cursor) -> Socks4Connect:
        version, command = cursor.take(2)
        if version != VERSION:
            self._fail("the client does not speak SOCKS4")
        port = int.from_bytes(cursor.take(2), "big")
        address = cursor.take(4)
        user = cursor.take_until_null()
        # SOCKS4a: 0.0.0.x with x not 0 says that a name follows the user.
        name = cursor.take_until_null() if address[:3] == bytes(3) and address[3] else None
        if len(user) > MAX_FIELD or len(name or b"") > MAX_FIELD:
            self._refuse("the client's SOCKS4 request has a field of more than 255 bytes")
        if command != CONNECT:
            self._refuse("BIND is not supported" if command == 2 else f"command {command} is not supported")
        host = str(ipaddress.IPv4Address(address)) if name is None else name.decode("utf-8", "replace")
        try:
            return Socks4Connect(Target.of(host, port), user)
        except InvalidTargetError as exc:
            self._refuse(str(exc))

    def _refuse(self, why: str) -> NoReturn:
        self.reply(Reply.REJECTED)
        self._fail(why)

    def _fail(self, why: str) -> NoReturn:
        self._over = True
        self._received = b""
        raise ClientProtocolError(why)
