from __future__ import annotations

import ssl

import pytest

from tunnel_relay.category import Category, category_of
from tunnel_relay.errors import (
    HostKeyError,
    LinkLostError,
    RelayProtocolError,
    SshAuthenticationError,
    TokenUnavailableError,
    WebSocketClosedError,
    WebSocketError,
    WebSocketRejectedError,
)
from tunnel_relay.protocol.upgrade import UNAUTHORIZED


@pytest.mark.parametrize(
    ("failure", "category"),
    [
        (OSError("no route"), Category.NETWORK),
        (WebSocketError("it hung up"), Category.NETWORK),
        (WebSocketClosedError(1006, ""), Category.NETWORK),
        (TokenUnavailableError("none"), Category.AUTHENTICATION),
        (SshAuthenticationError("no key"), Category.AUTHENTICATION),
        (WebSocketRejectedError(401), Category.AUTHENTICATION),
        (WebSocketRejectedError(403), Category.AUTHENTICATION),
        (WebSocketClosedError(UNAUTHORIZED, ""), Category.AUTHENTICATION),
        (WebSocketRejectedError(404), Category.CONFIGURATION),
        (ssl.SSLCertVerificationError("self-signed"), Category.CONFIGURATION),
        (WebSocketRejectedError(429), Category.SERVER),
        (WebSocketRejectedError(502), Category.SERVER),
        (WebSocketClosedError(1012, ""), Category.SERVER),
        (WebSocketRejectedError(426), Category.PROTOCOL),
        (WebSocketClosedError(1002, ""), Category.PROTOCOL),
        (RelayProtocolError("nonsense"), Category.PROTOCOL),
        (HostKeyError("changed"), Category.PROTOCOL),
        (ssl.SSLError("wrong version"), Category.PROTOCOL),
    ],
)
def test_every_failure_has_a_category(failure: Exception, category: Category) -> None:
    assert category_of(failure) is category
    wrapped = LinkLostError("in other words")
    wrapped.__cause__ = failure
    assert category_of(wrapped) is category
