"""What a proxy changes in the heads of the messages that it passes on (RFC 9110, section 7.6)."""

from __future__ import annotations

import re

import h11

from session_proxy.protocol.http_connect import Forward, Headers, HttpRefusalError

# Fields that concern one connection only (RFC 9110, section 7.6.1), beside those that "Connection" names.
# Transfer-Encoding is one of them too, but h11 frames the body that we send by it.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
    }
)

# How messages that came through us say so.
PSEUDONYM = b"sproxy"

# What a TRACE that ends here does not repeat (RFC 9110, section 9.3.8).
CONFIDENTIAL = frozenset({b"authorization", b"cookie", b"proxy-authorization"})

# Methods that may be sent twice, where the first time may have been lost (RFC 9110, section 9.2.2), and that
# come without a body, which could not be.
REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})


def tokens(headers: Headers, name: bytes) -> set[bytes]:
    """Return the lower-case tokens of all fields called *name*."""
    return {
        token.strip().lower()
        for field, value in headers
        if field.lower() == name
        for token in value.split(b",")
        if token.strip()
    }


def has_body(headers: Headers) -> bool:
    """Tell whether a request with *headers* has a body, even an empty one (RFC 9112, section 6)."""
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)


def upgrade_of(headers: Headers) -> bytes | None:
    """Return the protocol that a head offers to switch to, or `None`.

    HTTP/2 is not offered on: its settings would be the client's, its frames not ours to end.
    """
    if b"upgrade" not in tokens(headers, b"connection"):
        return None
    offered = [value for name, value in headers if name.lower() == b"upgrade"]
    return None if not offered or b"h2c" in tokens(headers, b"upgrade") else b", ".join(offered)


def has_two_lengths(headers: Headers) -> bool:
    """Tell whether a message has a length in two forms (RFC 9112, section 6.1).

    It may be meant to be read differently by us and by the next server: after it, neither connection is used
    again.
    """
    names = {name.lower() for name, _ in headers}
    return {b"content-length", b"transfer-encoding"} <= names


def framing(headers: Headers) -> frozenset[bytes]:
    """Return the fields that another one overrides (RFC 9112, section 6.3): two lengths are an attack."""
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in headers)
    return frozenset({b"content-length"}) if chunked else frozenset()


def end_to_end(headers: Headers, received: bytes) -> list[tuple[bytes, bytes]]:
    """Return *headers* without those that concern one connection only, and with us as their last hop.

    *received* is the version of HTTP that they came in. A machine's name in place of `PSEUDONYM` would tell the
    rest of the world what it is called (RFC 9110, section 7.6.3).
    """
    dropped = HOP_BY_HOP | tokens(headers, b"connection") | framing(headers)
    kept = [(name, value) for name, value in headers if name.lower() not in dropped]
    return [*kept, (b"Via", received + b" " + PSEUDONYM)]


def hops_left(request: Forward) -> int | None:
    """Return how often *request* may be passed on, `None` where nothing says so (RFC 9110, section 7.6.2).

    Raises:
      HttpRefusalError: it is no number.

    """
    if request.method not in (b"OPTIONS", b"TRACE"):
        return None
    values = {value for name, value in request.headers if name.lower() == b"max-forwards"}
    if not values:
        return None
    text = values.pop()
    # More digits than there are hops to think of.
    if values or not re.fullmatch(rb"[0-9]{1,9}", text):
        raise HttpRefusalError(400, "Max-Forwards is not a number")
    return int(text)


def answer_here(request: Forward) -> tuple[h11.Response, bytes]:
    """Return the response to an OPTIONS or TRACE *request* that is to be passed on no further, and its body."""
    body = b""
    headers: list[tuple[bytes, bytes]] = []
    if request.method == b"TRACE":
        fields = [(name, value) for name, value in request.headers if name.lower() not in CONFIDENTIAL]
        line = b"TRACE http://" + request.authority + request.path + b" HTTP/" + request.http_version
        body = b"".join((line, b"\r\n", *(b"%s: %s\r\n" % field for field in fields), b"\r\n"))
        headers.append((b"Content-Type", b"message/http"))
    headers.append((b"Content-Length", b"%d" % len(body)))
    if has_body(request.headers):
        # Nobody reads it.
        headers.append((b"Connection", b"close"))
    return h11.Response(status_code=200, reason=b"OK", headers=headers), body


def request_for_origin(request: Forward) -> h11.Request:
    """Return what the origin server gets: *request* in origin form, with the host that its URL names."""
    passed = end_to_end(request.headers, request.http_version)
    headers = [(b"Host", request.authority)]
    headers += [(name, value) for name, value in passed if name.lower() != b"host"]
    hops = hops_left(request)
    if hops is not None:
        headers = [(name, value) for name, value in headers if name.lower() != b"max-forwards"]
        headers.append((b"Max-Forwards", b"%d" % (hops - 1)))
    upgrade = upgrade_of(request.headers)
    # With a body the offer is void (RFC 9110, section 7.8, lets us choose): a server that took it before the
    # body has come would have the rest read as the new protocol.
    if upgrade is not None and not has_body(request.headers):
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    return h11.Request(method=request.method, target=request.path, headers=headers, http_version=b"1.1")


def response_for_client(response: h11.Response, *, is_last: bool = False) -> h11.Response:
    """Return what the client gets of an origin server's *response*; h11 frames its body anew.

    After the one that *is_last* the connection is closed, and says so.
    """
    headers = [
        (name, value)
        for name, value in end_to_end(response.headers.raw_items(), response.http_version)
        if name.lower() != b"transfer-encoding"
    ]
    if is_last:
        headers.append((b"Connection", b"close"))
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)


def interim_for_client(response: h11.InformationalResponse) -> h11.InformationalResponse:
    """Return what the client gets of a 1xx *response*; a 101 keeps its offer."""
    headers = end_to_end(response.headers.raw_items(), response.http_version)
    upgrade = upgrade_of(response.headers.raw_items())
    if response.status_code == 101 and upgrade is not None:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    return h11.InformationalResponse(
        status_code=response.status_code, headers=headers, reason=response.reason
    )
