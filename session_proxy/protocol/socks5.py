"""The server side of SOCKS5 (RFC 1928) with username/password (RFC 1929).

No I/O happens here. Feed bytes to `Socks5Server.receive_data`, pull what they mean from `next_event`, and
send whatever `data_to_send` returns, also after an error. The order is: `Credentials`, where the client was
asked for them (answer with `accept_credentials` or `reject_credentials`), then `Connect` or `UdpAssociate`
(answer with `reply`), then whatever the client sent beyond its request is in `trailing_data`.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import NoReturn

import attrs

from session_proxy.errors import ClientProtocolError, InvalidTargetError
from session_proxy.protocol.cursor import Cursor, NeedMoreError
from session_proxy.target import Target

VERSION = 5
NEGOTIATION_VERSION = 1
NO_AUTHENTICATION, USERNAME_PASSWORD, NO_ACCEPTABLE_METHOD = 0x00, 0x02, 0xFF
CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3
IPV4, DOMAIN_NAME, IPV6 = 1, 3, 4

# The longest message is the one of RFC 1929: 1 + 1 + 255 + 1 + 255 bytes. A message longer than this is
# none, and what follows the request is bounded by the driver, which stops reading there.
MAX_MESSAGE = 513

# "0.0.0.0:0", the address of a reply where no address of the proxy's means anything to the client.
NO_ADDRESS = bytes((IPV4, 0, 0, 0, 0, 0, 0))


class NoCredentialsError(ClientProtocolError):
    """The client offers no username and password, and they are required."""


class Reply(enum.IntEnum):
    """What became of a request (RFC 1928, section 6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


@attrs.frozen
class Credentials:
    """The client presented a user's name and password, as it sent them (RFC 1929 names no encoding)."""

    user: bytes
    password: bytes = attrs.field(repr=False)


@attrs.frozen
class Connect:
    """The client wants a connection to *target*."""

    target: Target


@attrs.frozen
class UdpAssociate:
    """The client wants to send datagrams from *host*:*port*; all zeros mean that it cannot tell yet."""

    host: str
    port: int


Request = Connect | UdpAssociate
Event = Credentials | Request


class State(enum.Enum):
    """What the server waits for."""

    GREETING = enum.auto()
    CREDENTIALS = enum.auto()
    VERDICT = enum.auto()
    REQUEST = enum.auto()
    ANSWER = enum.auto()
    OPEN = enum.auto()
    FAILED = enum.auto()


Host = str | ipaddress.IPv4Address | ipaddress.IPv6Address


def target_of(host: Host, port: int) -> Target:
    """Return the target that an address was read for; raises `InvalidTargetError`."""
    return Target.of(host, port) if isinstance(host, str) else Target.of_address(host, port)


def encode_address(host: str, port: int) -> bytes:
    """Return ATYP, address and port (RFC 1928, section 5) of an IP address or a name of at most 255 bytes."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        return bytes((DOMAIN_NAME, len(name))) + name + port.to_bytes(2, "big")
    kind = IPV4 if address.version == 4 else IPV6
    return bytes((kind,)) + address.packed + port.to_bytes(2, "big")


def read_address(cursor: Cursor) -> tuple[Host, int] | None:
    """Read ATYP, address and port; `None` for an unknown type.

    A name is as it was sent; where its bytes are not UTF-8, it comes out so that no target accepts it.
    """
    kind = cursor.byte()
    if kind == IPV4:
        host: Host = ipaddress.IPv4Address(cursor.take(4))
    elif kind == DOMAIN_NAME:
        host = cursor.take(cursor.byte()).decode("utf-8", "replace")
    elif kind == IPV6:
        host = ipaddress.IPv6Address(cursor.take(16))
    else:
        return None
    return host, int.from_bytes(cursor.take(2), "big")


@attrs.define(eq=False)
class Socks5Server:
    """One client's handshake; *require_credentials* refuses clients that offer no username and password."""

    require_credentials: bool = False
    state: State = attrs.field(default=State.GREETING, init=False)
    _received: bytes = attrs.field(default=b"", init=False, repr=False)
    _outgoing: bytes = attrs.field(default=b"", init=False, repr=False)

    def receive_data(self, data: bytes) -> None:
        """Add bytes from the client; empty *data* means that it has closed its side.

        Raises:
          ClientProtocolError: the client left in the middle of the handshake.

        """
        if not data:
            self._fail("the client hung up during the SOCKS5 handshake")
        self._received += data

    def next_event(self) -> Event | None:
        """Return the next event, or `None` where more bytes are needed first.

        Raises:
          ClientProtocolError: the client broke the protocol or asks for what there is not; send what
            `data_to_send` returns, then close.
          NoCredentialsError: it offers none, where they are required; the same.

        """
        while True:
            cursor = Cursor(self._received)
            try:
                if self.state is State.GREETING:
                    event = self._read_greeting(cursor)
                elif self.state is State.CREDENTIALS:
                    event = self._read_credentials(cursor)
                elif self.state is State.REQUEST:
                    event = self._read_request(cursor)
                else:
                    return None
            except NeedMoreError:
                # A message that is not complete has a bound in its own length bytes: MAX_MESSAGE.
                assert len(self._received) < MAX_MESSAGE
                return None
            self._received = self._received[cursor.at :]
            if event is not None:
                return event

    def data_to_send(self) -> bytes:
        """Return, and forget, the bytes to send to the client."""
        data, self._outgoing = self._outgoing, b""
        return data

    def trailing_data(self) -> bytes:
        """Return, and forget, what the client sent beyond its request."""
        data, self._received = self._received, b""
        return data

    def accept_credentials(self) -> None:
        """Answer `Credentials`: they are good."""
        self._expect(State.VERDICT)
        self._outgoing += bytes((NEGOTIATION_VERSION, 0))
        self.state = State.REQUEST

    def reject_credentials(self) -> None:
        """Answer `Credentials`: they are not."""
        self._expect(State.VERDICT)
        self._outgoing += bytes((NEGOTIATION_VERSION, 1))
        self.state = State.FAILED

    def reply(self, code: Reply, host: str = "", port: int = 0) -> None:
        """Answer the request; `Reply.SUCCEEDED` only once what it asks for is there.

        *host* and *port* are the address that the proxy uses: of interest for `UdpAssociate` only.
        """
        self._expect(State.ANSWER)
        address = encode_address(host, port) if host else NO_ADDRESS
        self._outgoing += bytes((VERSION, code, 0)) + address
        self.state = State.OPEN if code is Reply.SUCCEEDED else State.FAILED

    def _read_greeting(self, cursor: Cursor) -> None:
        if cursor.byte() != VERSION:
            self._fail("the client does not speak SOCKS5")
        methods = cursor.take(cursor.byte())
        if not self.require_credentials and NO_AUTHENTICATION in methods:
            self.state = State.REQUEST
            self._outgoing += bytes((VERSION, NO_AUTHENTICATION))
        elif USERNAME_PASSWORD in methods:
            # Where none are needed, a client that insists on presenting credentials may.
            self.state = State.CREDENTIALS
            self._outgoing += bytes((VERSION, USERNAME_PASSWORD))
        else:
            # Two bytes (RFC 1928, section 3): this is no reply to a request.
            self._outgoing += bytes((VERSION, NO_ACCEPTABLE_METHOD))
            if self.require_credentials:
                self._fail("the client offers no username and password", NoCredentialsError)
            self._fail("the client does not offer the method no authentication")

    def _read_credentials(self, cursor: Cursor) -> Credentials:
        if cursor.byte() != NEGOTIATION_VERSION:
            self._fail("the client's credentials are not in the form of RFC 1929")
        user = cursor.take(cursor.byte())
        password = cursor.take(cursor.byte())
        self.state = State.VERDICT
        return Credentials(user, password)

    def _read_request(self, cursor: Cursor) -> Request:
        if cursor.byte() != VERSION:
            self._fail("the client's request is not SOCKS5")
        command, _reserved = cursor.take(2)
        address = read_address(cursor)
        if address is None:
            self._refuse(Reply.ADDRESS_TYPE_NOT_SUPPORTED, "the client sent an unknown address type")
        self.state = State.ANSWER
        if command == UDP_ASSOCIATE:
            return UdpAssociate(str(address[0]), address[1])
        if command != CONNECT:
            name = "BIND" if command == BIND else f"command {command}"
            self._refuse(Reply.COMMAND_NOT_SUPPORTED, f"{name} is not supported")
        try:
            return Connect(target_of(*address))
        except InvalidTargetError as exc:
            self._refuse(Reply.GENERAL_FAILURE, str(exc))

    def _refuse(self, code: Reply, why: str) -> NoReturn:
        self.state = State.ANSWER
        self.reply(code)
        self._fail(why)

    def _fail(self, why: str, error: type[ClientProtocolError] = ClientProtocolError) -> NoReturn:
        self.state = State.FAILED
        self._received = b""
        raise error(why)

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise RuntimeError(f"not allowed in state {self.state.name}")
