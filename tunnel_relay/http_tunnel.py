"""TCP connections, through an HTTP proxy where there is one (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import base64
import os
import socket
from urllib.parse import SplitResult, unquote, urlsplit

import h11
import trio

from tunnel_relay.errors import WebSocketError
from tunnel_relay.streams import ReplayedStream

# The answer of an HTTP proxy to CONNECT.
MAX_PROXY_ANSWER = 16 * 1024


async def open_http_stream(host: str, port: int, proxy: str | None) -> trio.abc.Stream:
    """Open a TCP connection to *host* and *port*, through the HTTP *proxy* where one is given.

    Raises:
      WebSocketError: the host or the proxy could not be reached, or the proxy refused.

    """
    if proxy is None:
        return await _open_tcp(host, port, host)
    parts = split_proxy(proxy)
    name = parts.hostname or ""
    stream = await _open_tcp(name, parts.port or 80, f"the HTTP proxy {name}")
    try:
        return await _connect_through(stream, host, port, parts)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


def split_proxy(proxy: str) -> SplitResult:
    """Return the parts of the URL of an HTTP proxy, which may lack its scheme; there is a host, and its port is sound.

    Raises:
      WebSocketError: it is none. It may hold a password, and is not repeated.

    """
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise WebSocketError("the HTTP proxy's URL is not http://HOST:PORT")


async def _open_tcp(host: str, port: int, who: str) -> trio.abc.Stream:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as exc:
        raise WebSocketError(f"{who}, port {port}: {_why(exc)}") from exc
    except UnicodeError as exc:
        raise WebSocketError(f"{who} is no name that DNS could know") from exc
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def _why(exc: OSError) -> str:
    """Return what went wrong; of several attempts, what all of them say."""
    if exc.strerror:
        return exc.strerror
    # Trio's error has the attempts as its cause, and no errno of its own.
    cause = exc.__cause__
    attempts: list[BaseException | None] = (
        list(cause.exceptions) if isinstance(cause, BaseExceptionGroup) else [cause]  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    )
    reasons = {os.strerror(each.errno) for each in attempts if isinstance(each, OSError) and each.errno}
    return reasons.pop() if len(reasons) == 1 else "no address of it answers"


async def _connect_through(
    stream: trio.abc.Stream, host: str, port: int, proxy: SplitResult
) -> trio.abc.Stream:
    """Ask the proxy at the other end of *stream* to CONNECT (RFC 9110, section 9.3.6)."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = [("Host", authority)]
    if proxy.username is not None:
        credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers.append(("Proxy-Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}"))
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_PROXY_ANSWER)
    who = f"the HTTP proxy {proxy.hostname}"
    try:
        await stream.send_all(http.send(h11.Request(method="CONNECT", target=authority, headers=headers)))
        await stream.send_all(http.send(h11.EndOfMessage()))
        while (event := http.next_event()) is h11.NEED_DATA or isinstance(event, h11.InformationalResponse):
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some()))
    except h11.LocalProtocolError:
        # What it says of itself may hold the password.
        raise WebSocketError(f"{host} cannot be asked for through an HTTP proxy") from None
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as exc:
        raise WebSocketError(f"{who} did not answer as an HTTP proxy does") from exc
    if not isinstance(event, h11.Response):
        raise WebSocketError(f"{who} hung up")
    if not 200 <= event.status_code < 300:
        raise WebSocketError(f"{who} answered CONNECT with HTTP status {event.status_code}")
    left, _ = http.trailing_data
    return ReplayedStream(stream, left) if left else stream
