"""WebSockets (RFC 6455) over any Trio stream. The only file that imports trio-websocket.

`open_websocket` dials, through an HTTP proxy where there is one; `accept_websocket` takes the server's side
of a stream on which an upgrade request arrives. No extension is offered: what travels here is ciphertext,
which permessage-deflate only makes slower.
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, Event
from wsproto.utilities import ProtocolError

from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError, WebSocketError, WebSocketRejectedError

# Reads of the stream below: trio-websocket's own 4 KiB cost two thirds of the throughput.
READ_SIZE = 256 * 1024

# No message of ours is longer than 64 KiB; a peer's may be a little, and a megabyte is an attack.
MAX_MESSAGE = 1024 * 1024

# Messages that may wait for their reader; small ones come in bursts, and one at a time would cost a task
# switch each.
QUEUE = 32

# A closing handshake that takes longer is not worth waiting for: the stream is closed all the same.
CLOSE_LIMIT = 2.0

# The answer of an HTTP proxy to CONNECT.
MAX_PROXY_ANSWER = 16 * 1024

NO_CLOSE_FRAME = 1006


@attrs.define(eq=False)
class WebSocket:
    """An open WebSocket. One task may receive, any number may send."""

    _connection: WebSocketConnection
    path: str = ""
    """What the client asked for: path and query."""

    async def send_text(self, text: str) -> None:
        """Send one text message; raises `WebSocketClosedError`."""
        await self._send(text)

    async def send_binary(self, data: bytes) -> None:
        """Send one binary message; raises `WebSocketClosedError`."""
        await self._send(data)

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._connection.send_message(message)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def receive(self) -> str | bytes:
        """Return the next message; raises `WebSocketClosedError` where there is none any more."""
        try:
            return await self._connection.get_message()
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def ping(self, payload: bytes | None = None) -> None:
        """Send a ping and wait for its pong, without a limit; raises `WebSocketClosedError`."""
        try:
            await self._connection.ping(payload)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close with *code* and *reason*; bounded, even where the peer does not answer."""
        with trio.move_on_after(CLOSE_LIMIT, shield=True):
            await self._connection.aclose(code, reason or None)


def _closed(exc: ConnectionClosed) -> WebSocketClosedError:
    if exc.reason is None:
        return WebSocketClosedError(NO_CLOSE_FRAME, "")
    return WebSocketClosedError(exc.reason.code, printable(exc.reason.reason or ""))


def printable(text: str) -> str:
    """Return what a peer wrote, fit for a terminal: no control characters, at most 200 characters."""
    return "".join(c if c.isprintable() else " " for c in text)[:200]


@asynccontextmanager
async def open_websocket(
    url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> AsyncGenerator[WebSocket, None]:
    """Dial *url* (``ws://`` or ``wss://``) and yield the open WebSocket; it is closed with the block.

    *proxy* is the URL of an HTTP proxy that is asked to CONNECT, with Basic credentials where it has some.
    The caller holds the time limit.

    Raises:
      WebSocketRejectedError: the server answered, but did not upgrade.
      WebSocketError: the server or the proxy could not be reached; the message says which and why.

    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise WebSocketError(f"{printable(url)!r} is not a WebSocket URL")
    secure = parts.scheme == "wss"
    stream = await open_http_stream(parts.hostname, parts.port or (443 if secure else 80), proxy)
    try:
        if secure:
            context = ssl_context or ssl.create_default_context()
            stream = trio.SSLStream(stream, context, server_hostname=parts.hostname, https_compatible=True)
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        connection = WebSocketConnection(
            stream,
            FastConnection(ConnectionType.CLIENT),
            host=parts.netloc.rpartition("@")[2],
            path=path,
            client_extra_headers=[(name.encode(), value.encode()) for name, value in headers],
            message_queue_size=QUEUE,
            max_message_size=MAX_MESSAGE,
            receive_buffer_size=READ_SIZE,
        )
        async with _running(connection, parts.hostname) as reader:
            await reader.wait_open()
            yield WebSocket(connection, path)
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def accept_websocket(
    stream: trio.abc.Stream, *, initial: bytes = b""
) -> AsyncGenerator[WebSocket, None]:
    """Accept the upgrade that arrives on *stream* and yield the WebSocket; it is closed with the block.

    *initial* is what was read from the stream already: the head of the upgrade request, or its beginning.

    Raises:
      WebSocketError: the client asked for something else, or hung up.

    """
    replayed = _ReplayedStream(stream, initial) if initial else stream
    connection = WebSocketConnection(
        replayed,
        FastConnection(ConnectionType.SERVER),
        message_queue_size=QUEUE,
        max_message_size=MAX_MESSAGE,
        receive_buffer_size=READ_SIZE,
    )
    async with _running(connection, "the client") as reader:
        yield WebSocket(connection, await reader.accept())


@attrs.define(eq=False)
class _Reader:
    """The task that reads for a connection, and how the upgrade went."""

    connection: WebSocketConnection
    peer: str
    failure: WebSocketError | None = None
    _settled: trio.Event = attrs.field(factory=trio.Event, init=False)

    # trio-websocket starts its reader in the caller's nursery, where a rejection would surface as a group,
    # and a server that hangs up would leave us waiting for ever. Run from here, both are one plain error. The
    # three private names are the ones that its own `wrap_client_stream` and `wrap_server_stream` use.

    async def run(self) -> None:
        try:
            await self.connection._reader_task()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        except ConnectionRejected as exc:
            self.failure = WebSocketRejectedError(exc.status_code)
        except (ConnectionClosed, ProtocolError, h11.ProtocolError, ssl.SSLError, OSError) as exc:
            self.failure = WebSocketError(f"{self.peer}: {printable(str(exc))}")
        finally:
            self._settled.set()

    async def wait_open(self) -> None:
        async def opened() -> None:
            await self.connection._open_handshake.wait()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self._settled.set()

        async with open_background() as nursery:
            nursery.start_soon(opened)
            await self._settled.wait()
        if not self.connection._open_handshake.is_set():  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            raise self.failure or WebSocketError(f"{self.peer} hung up, or did not answer with HTTP")

    async def accept(self) -> str:
        proposed: list[WebSocketRequest] = []

        async def propose() -> None:
            proposed.append(await self.connection._get_request())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self._settled.set()

        async with open_background() as nursery:
            nursery.start_soon(propose)
            await self._settled.wait()
        if not proposed:
            raise self.failure or WebSocketError(f"{self.peer} did not ask for a WebSocket")
        try:
            await proposed[0].accept()
        except ConnectionClosed as exc:
            raise _closed(exc) from exc
        return proposed[0].path


@asynccontextmanager
async def _running(connection: WebSocketConnection, peer: str) -> AsyncGenerator[_Reader, None]:
    # The reader outlives a cancellation of the block, so that the closing handshake still works; it is bounded.
    reading = trio.CancelScope(shield=True)
    reader = _Reader(connection, peer)

    async def read() -> None:
        with reading:
            await reader.run()

    async with open_background() as nursery:
        nursery.start_soon(read)
        try:
            yield reader
        finally:
            # Nothing else would tell the peer that the end is intended.
            with trio.move_on_after(CLOSE_LIMIT, shield=True):
                await connection.aclose()
            reading.cancel()


class FastConnection(WSConnection):
    """wsproto's state machine, masking with C code where the ``websockets`` package is there.

    The masks themselves stay random (RFC 6455, section 5.3).
    """

    def send(self, event: Event) -> bytes:
        """Return the bytes that carry *event*; whole binary messages take a short way."""
        if (
            isinstance(event, BytesMessage)
            and event.message_finished
            and self.connection is not None
            and self.state is ConnectionState.OPEN
        ):
            return _binary_frame(bytes(event.data), masked=self.client)
        return super().send(event)


def _binary_frame(data: bytes, *, masked: bool) -> bytes:
    size = len(data)
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x82, mask_bit | size))
    elif size < 65536:
        head = struct.pack("!BBH", 0x82, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, mask_bit | 127, size)
    if not masked:
        return head + data
    key = os.urandom(4)
    return b"".join((head, key, apply_mask(data, key)))


def _mask_by_integer(data: bytes, mask: bytes) -> bytes:
    """XOR *data* with *mask* repeated, as one large number: no loop in Python."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


try:
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = _mask_by_integer


async def open_http_stream(host: str, port: int, proxy: str | None) -> trio.abc.Stream:
    """Open a TCP connection to *host* and *port*, through the HTTP *proxy* where one is given.

    Raises:
      WebSocketError: the host or the proxy could not be reached, or the proxy refused.

    """
    if proxy is None:
        return await _open_tcp(host, port, host)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise WebSocketError("the HTTP proxy's URL is not http://HOST:PORT")
    stream = await _open_tcp(parts.hostname, parts.port or 80, f"the HTTP proxy {parts.hostname}")
    try:
        return await _connect_through(stream, host, port, parts)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _open_tcp(host: str, port: int, who: str) -> trio.abc.Stream:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as exc:
        # Where several addresses were tried, Trio's error has them as its cause, and no errno of its own.
        why = exc.strerror or (exc.__cause__.strerror if isinstance(exc.__cause__, OSError) else None)
        raise WebSocketError(f"{who}, port {port}: {why or 'no address of it answers'}") from exc
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


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
    except (trio.BrokenResourceError, h11.RemoteProtocolError) as exc:
        raise WebSocketError(f"{who} did not answer as an HTTP proxy does") from exc
    if not isinstance(event, h11.Response):
        raise WebSocketError(f"{who} hung up")
    if not 200 <= event.status_code < 300:
        raise WebSocketError(f"{who} answered CONNECT with HTTP status {event.status_code}")
    left, _ = http.trailing_data
    return _ReplayedStream(stream, left) if left else stream


@attrs.define(eq=False)
class _ReplayedStream(trio.abc.Stream):
    """A stream of which *read* has been read already: it comes again first."""

    stream: trio.abc.Stream
    read: bytes

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self.read:
            return await self.stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        size = len(self.read) if max_bytes is None else max_bytes
        data, self.read = self.read[:size], self.read[size:]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()
