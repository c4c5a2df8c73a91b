"""The server side of an HTTP/1.1 proxy (RFC 9110, RFC 9112): CONNECT and requests in absolute form.

No I/O happens here; h11 knows the syntax, this file what a proxy makes of it. Feed bytes to
`HttpServer.receive_data`, pull events from `next_event`, and send what `respond` returns. After `Tunnel` and
the 200 of `ESTABLISHED`, whatever the client sent beyond its request is in `trailing_data`. After `Forward`
come h11's `Data` and `EndOfMessage`; when the response is complete, `next_request` makes ready for the next.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

import attrs
import h11

from session_proxy.errors import BadAnswerError, ClientProtocolError, InvalidTargetError
from session_proxy.target import Target

# The largest head of a request or response. Apache takes 8 KiB a line and 100 lines, nginx 32 KiB in all.
MAX_HEAD = 64 * 1024

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

Headers = Sequence[tuple[bytes, bytes]]

# Where h11's messages go over to quoting the peer.
_PEER_BYTES = re.compile(r":| b?['\"]| bytearray\(")


# h11's words for its own users, by how they begin, in words for ours.
_MEANINGS = {
    "Receive buffer too long": f"a part of it is larger than {MAX_HEAD // 1024} KiB",
    "Missing mandatory Host": "it has no Host header",
    "Found multiple Host": "it has several Host headers",
    "Only Transfer-Encoding": "it has a transfer coding other than chunked",
    "Received server _SWITCH": "it switches to a protocol that was not offered",
    "peer unexpectedly closed": "it breaks off",
    "peer closed connection": "its body breaks off",
    "can't handle event type": "it comes out of turn",
}


class HttpRefusalError(ClientProtocolError):
    """The request cannot be served: answer with *status*, then close."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@attrs.frozen
class Credentials:
    """What a Proxy-Authorization header of scheme Basic (RFC 7617) presents."""

    user: bytes
    password: bytes = attrs.field(repr=False)


@attrs.frozen
class Tunnel:
    """The client wants a tunnel to *target* (RFC 9110, section 9.3.6)."""

    target: Target
    credentials: Credentials | None


@attrs.frozen
class Forward:
    """The client wants the proxy to send a request to *target*.

    *authority* is the host and port as the client spelled them, *path* what the origin server is to see as
    the request's target (RFC 9112, section 3.2).
    """

    target: Target
    authority: bytes
    path: bytes
    method: bytes
    headers: Headers = attrs.field(repr=False)
    http_version: bytes
    credentials: Credentials | None


Event = Tunnel | Forward | h11.Data | h11.EndOfMessage


@attrs.define(eq=False)
class HttpServer:
    """One client's connection."""

    _http: h11.Connection = attrs.field(
        factory=lambda: h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD), init=False, repr=False
    )

    has_responded: bool = attrs.field(default=False, init=False)
    """Whether a response has been begun, so that no other can be sent in its place."""

    def receive_data(self, data: bytes) -> None:
        """Add bytes from the client; empty *data* means that it has closed its side."""
        self._http.receive_data(data)

    def next_event(self) -> Event | None:
        """Return the next event, or `None` where more bytes are needed first, or no more can come.

        Raises:
          HttpRefusalError: the request cannot be served.

        """
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as exc:
            raise HttpRefusalError(
                exc.error_status_hint, f"the request is not HTTP/1.1: {fault(exc)}"
            ) from exc
        if isinstance(event, h11.Request):
            return read_request(event)
        if isinstance(event, h11.Data | h11.EndOfMessage):
            return event
        return None

    @property
    def takes_data(self) -> bool:
        """Whether more bytes can come of the request, or of the next one."""
        return self._http.their_state in (h11.IDLE, h11.SEND_BODY)

    @property
    def may_finish(self) -> bool:
        """Whether a client may well send no more: it has said that this is its last request, or has sent the next."""
        return self._http.their_state is h11.MUST_CLOSE or bool(self._http.trailing_data[0])

    def respond(self, event: h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage) -> bytes:
        """Return the bytes of a part of the response; h11 chooses the framing that the client understands.

        Raises:
          BadAnswerError: an origin server answers what cannot be passed on.

        """
        try:
            data = self._http.send(event) or b""
        except h11.LocalProtocolError as exc:
            raise BadAnswerError(f"the answer cannot be passed on: {fault(exc)}") from exc
        switches = isinstance(event, h11.InformationalResponse) and event.status_code == 101
        if switches or isinstance(event, h11.Response):
            self.has_responded = True
        return data

    def next_request(self) -> bool:
        """Make ready for another request on this connection; `False` where there can be none."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        self.has_responded = False
        return True

    def trailing_data(self) -> bytes:
        """Return what the client sent beyond a request that has no body and switches protocols."""
        self._http.next_event()
        return self._http.trailing_data[0]


def fault(error: h11.ProtocolError) -> str:
    """Return what is wrong with a message, without the bytes that are: they may hold credentials."""
    text = str(error)
    for beginning, meaning in _MEANINGS.items():
        if text.startswith(beginning):
            return meaning
    return _PEER_BYTES.split(text, maxsplit=1)[0]


def read_request(request: h11.Request) -> Tunnel | Forward:
    """Return what *request* asks a proxy for.

    Raises:
      HttpRefusalError: a proxy cannot serve it.

    """
    if request.http_version[:2] != b"1.":
        raise HttpRefusalError(505, "this proxy speaks HTTP/1.1 and HTTP/1.0 only")
    headers = request.headers.raw_items()
    presented = credentials(headers)
    if request.method == b"CONNECT":
        if b"@" in request.target:
            raise HttpRefusalError(400, "CONNECT needs HOST:PORT, without a user")
        if any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers):
            raise HttpRefusalError(400, "a CONNECT request has no body")
        try:
            return Tunnel(Target.parse(request.target.decode("ascii")), presented)
        except InvalidTargetError as exc:
            raise HttpRefusalError(400, f"CONNECT needs HOST:PORT: {exc}") from exc
    authority, path = split_absolute(request.method, request.target)
    try:
        text = authority.decode("ascii")
        has_port = text.rpartition(":")[1] and not text.endswith("]")
        target = Target.parse(text if has_port else f"{text}:80")
    except InvalidTargetError as exc:
        raise HttpRefusalError(400, f"the request's URL names no host: {exc}") from exc
    return Forward(target, authority, path, request.method, headers, request.http_version, presented)


def split_absolute(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Split a request's target in absolute form into the authority, and the target for the origin server.

    Raises:
      HttpRefusalError: it has another form, or a scheme that takes a tunnel.

    """
    scheme, separator, rest = target.partition(b"://")
    if target.startswith(b"/") or target == b"*" or not separator:
        raise HttpRefusalError(
            400, "this is a proxy, not a web server: set it as the proxy of your program or browser"
        )
    if scheme.lower() != b"http":
        raise HttpRefusalError(501, f"{scheme.decode('ascii')[:20]}:// needs a tunnel: use CONNECT")
    end = min((at for at in map(rest.find, (b"/", b"?", b"#")) if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:].partition(b"#")[0]
    if b"@" in authority:
        raise HttpRefusalError(400, "a user in the URL is not accepted: use an Authorization header")
    if not path:
        # RFC 9112, section 3.2.4: OPTIONS without a path is meant for the server as a whole.
        return authority, b"*" if method == b"OPTIONS" else b"/"
    return authority, path if path.startswith(b"/") else b"/" + path


def credentials(headers: Headers) -> Credentials | None:
    """Return the credentials of a Proxy-Authorization header, `None` where none can be read."""
    for name, value in headers:
        if name.lower() == b"proxy-authorization":
            scheme, _, encoded = value.partition(b" ")
            if scheme.lower() != b"basic":
                return None
            try:
                user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
            except binascii.Error:
                return None
            return Credentials(user, password) if colon else None
    return None


def refusal(status: int, message: str, *, method: bytes = b"GET") -> bytes:
    """Return a whole response that says in one line what failed, and closes the connection."""
    body = f"session-proxy: {message}\n".encode("utf-8", "replace")
    lines = [
        f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}",
        "Content-Type: text/plain; charset=utf-8",
        "X-Content-Type-Options: nosniff",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if status == 407:
        lines.append('Proxy-Authenticate: Basic realm="session-proxy"')
    head = "".join(f"{line}\r\n" for line in lines).encode("ascii") + b"\r\n"
    return head if method == b"HEAD" else head + body
