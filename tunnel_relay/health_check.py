"""Asks a relay server whether it is well."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from urllib.parse import urlsplit

import h11
import trio

from tunnel_relay.errors import WebSocketError
from tunnel_relay.http_tunnel import open_http_stream
from tunnel_relay.protocol.upgrade import HEALTH_PATH
from tunnel_relay.tls import client_tls

# Seconds that an answer may take, and how long it may be.
PATIENCE = 5.0
LONGEST = 16 * 1024


async def is_healthy(url: str, ssl_context: ssl.SSLContext | None = None, proxy: str | None = None) -> bool:
    """Return whether the server of the WebSocket *url* (``ws://`` or ``wss://``) says that it is well."""
    with trio.move_on_after(PATIENCE):
        return await _ask(url, ssl_context, proxy) == HTTPStatus.OK
    return False


async def _ask(url: str, ssl_context: ssl.SSLContext | None, proxy: str | None) -> int | None:
    """Return the status of the answer; None where there was none."""
    parts = urlsplit(url)
    secure, host = parts.scheme == "wss", parts.hostname or ""
    try:
        stream = await open_http_stream(host, parts.port or (443 if secure else 80), proxy)
    except WebSocketError:
        return None
    try:
        if secure:
            stream = client_tls(stream, ssl_context, host)
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST)
        headers = [("Host", parts.netloc.rpartition("@")[2]), ("Connection", "close")]
        request = http.send(h11.Request(method="GET", target=HEALTH_PATH, headers=headers)) or b""
        await stream.send_all(request + (http.send(h11.EndOfMessage()) or b""))
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        return event.status_code if isinstance(event, h11.Response) else None
    except (trio.BrokenResourceError, h11.RemoteProtocolError, ssl.SSLError, OSError):
        return None
    finally:
        await trio.aclose_forcefully(stream)
