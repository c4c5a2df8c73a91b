"""What kind of trouble there is with a relay, and what helps against each."""

from __future__ import annotations

import enum
import ssl
from http import HTTPStatus

from tunnel_relay.errors import (
    RelayProtocolError,
    SshAuthenticationError,
    SshError,
    TokenUnavailableError,
    WebSocketClosedError,
    WebSocketRejectedError,
)
from tunnel_relay.protocol.upgrade import UNAUTHORIZED

# Codes of RFC 6455, section 7.4.1 by which a server says that it has trouble of its own.
_SERVER_CODES = (1001, 1011, 1012, 1013)
_PROTOCOL_CODES = (1002, 1003, 1007, 1008, 1009, 1010)

_AUTHENTICATION = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_PROTOCOL = (HTTPStatus.UPGRADE_REQUIRED,)


class Category(enum.Enum):
    """Each kind, and what is done about it without anybody being asked."""

    NETWORK = "network"
    """The connection failed or broke: dial again, with growing pauses."""
    AUTHENTICATION = "authentication"
    """The token or the key is not accepted: get another token, or ask for one."""
    CONFIGURATION = "configuration"
    """What is written does not fit: only a person can mend it, so attempts are few."""
    SERVER = "server"
    """The relay has trouble, or wants a pause: other servers first, and what it asks for."""
    PROTOCOL = "protocol"
    """The other end does not keep to what was agreed: begin anew."""


def category_of(failure: BaseException) -> Category:
    """Return what kind of trouble *failure* is."""
    match failure:
        case TokenUnavailableError() | SshAuthenticationError():
            return Category.AUTHENTICATION
        case WebSocketRejectedError(status=status):
            return _of_status(status)
        case WebSocketClosedError(code=code):
            return _of_code(code)
        case ssl.SSLCertVerificationError():
            return Category.CONFIGURATION
        case ssl.SSLError() | RelayProtocolError() | SshError():
            return Category.PROTOCOL
        case _:
            cause = failure.__cause__
            return Category.NETWORK if cause is None else category_of(cause)


def _of_status(status: int) -> Category:
    if status in _AUTHENTICATION:
        return Category.AUTHENTICATION
    if status in _PROTOCOL:
        return Category.PROTOCOL
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Category.SERVER
    return Category.CONFIGURATION


def _of_code(code: int) -> Category:
    if code == UNAUTHORIZED:
        return Category.AUTHENTICATION
    if code in _SERVER_CODES:
        return Category.SERVER
    return Category.PROTOCOL if code in _PROTOCOL_CODES else Category.NETWORK
