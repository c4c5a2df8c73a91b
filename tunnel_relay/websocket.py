"""WebSockets (RFC 6455) over any Trio stream. The only file that imports trio-websocket.

`open_websocket` dials, through an HTTP proxy where there is one; `accept_websocket` takes the server's side
of a stream on which an upgrade request arrives. No extension is offered: what travels here is ciphertext,
which permessage-deflate only makes slower.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import attrs
import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, WebSocketRequest
from wsproto import ConnectionType
from wsproto.events import BytesMessage, TextMessage
from wsproto.utilities import LocalProtocolError, ProtocolError

from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError, WebSocketError, WebSocketRejectedError
from tunnel_relay.http_tunnel import open_http_stream
from tunnel_relay.streams import GatheringStream, ReplayedStream
from tunnel_relay.tls import client_tls, shake_hands
from tunnel_relay.wsproto_connection import MAX_MESSAGE, BinaryMessages, FastConnection

# Reads of the stream below: trio-websocket's own 4 KiB cost two thirds of the throughput.
READ_SIZE = 272 * 1024

# Bytes of messages that may wait for their reader, before no more are read from the stream.
MAX_INBOX = 512 * 1024

# A closing handshake that takes longer is not worth waiting for: the stream is closed all the same.
CLOSE_LIMIT = 2.0

NO_CLOSE_FRAME = 1006

# Digits of a Retry-After that are believed (RFC 9110, section 10.2.3).
LONGEST_WAIT = 6


@attrs.define(eq=False)
class WebSocket:
    """An open WebSocket. One task may receive, any number may send."""

    _connection: _BatchingConnection
    _stream: GatheringStream
    path: str = ""
    """What the client asked for: path and query."""
    _received: deque[str | bytes] = attrs.field(factory=deque[str | bytes], init=False, repr=False)

    def gather(self, seconds: float) -> None:
        """Let reads wait for so long from now on, so that many small messages come at once; 0 ends that."""
        self._stream.pause = seconds

    async def send_text(self, text: str) -> None:
        """Send one text message; raises `WebSocketClosedError`."""
        try:
            await self._connection.send_message(text)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def send_binary(self, data: bytes) -> None:
        """Send one binary message; raises `WebSocketClosedError`."""
        await self.send_many((data,))

    async def send_many(self, messages: Sequence[bytes]) -> None:
        """Send binary messages in one piece, which spares most of their cost; raises `WebSocketClosedError`."""
        try:
            await self._connection.send_messages(messages)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def receive(self) -> str | bytes:
        """Return the next message; raises `WebSocketClosedError` where there is none any more."""
        if not self._received:
            self._received.extend(await self.receive_many())
        else:
            await trio.lowlevel.checkpoint()
        return self._received.popleft()

    async def receive_many(self) -> list[str | bytes]:
        """Return all messages that have arrived, waiting for one; raises `WebSocketClosedError`."""
        try:
            return await self._connection.take_messages()
        except ConnectionClosed as exc:
            raise _closed(exc) from exc

    async def ping(self, payload: bytes | None = None) -> None:
        """Send a ping and wait for its pong, without a limit; raises `WebSocketClosedError`."""
        try:
            await self._connection.ping(payload)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc
        if self._connection.closed is not None:
            # The reader wakes all who wait, when it ends.
            raise _closed(ConnectionClosed(self._connection.closed))

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close with *code* and *reason*; bounded, even where the peer does not answer."""
        await _close(self._connection, code, reason or None)

    async def abandon(self) -> None:
        """Close it at once, without a word: to a peer of which nothing is heard."""
        await trio.aclose_forcefully(self._stream)


async def _close(connection: _BatchingConnection, code: int = 1000, reason: str | None = None) -> None:
    connection.drop_messages()
    with trio.move_on_after(CLOSE_LIMIT, shield=True):
        await connection.aclose(code, reason)


def _closed(exc: ConnectionClosed) -> WebSocketClosedError:
    if exc.reason is None:
        return WebSocketClosedError(NO_CLOSE_FRAME, "")
    return WebSocketClosedError(exc.reason.code, printable(exc.reason.reason or ""))


def _rejected(exc: ConnectionRejected) -> WebSocketRejectedError:
    headers = {name.lower(): value for name, value in exc.headers}
    plain = headers.get(b"content-type", b"").startswith(b"text/plain")
    lines = (exc.body or b"").decode("utf8", "replace").strip().splitlines() if plain else []
    wait = headers.get(b"retry-after", b"")
    retry_after = float(wait) if wait.isdigit() and len(wait) <= LONGEST_WAIT else 0.0
    return WebSocketRejectedError(exc.status_code, printable(lines[0]) if lines else "", retry_after)


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
    subprotocol: str | None = None,
) -> AsyncGenerator[WebSocket, None]:
    """Dial *url* (``ws://`` or ``wss://``) and yield the open WebSocket; it is closed with the block.

    *proxy* is the URL of an HTTP proxy that is asked to CONNECT, with Basic credentials where it has some; a server
    that does not choose *subprotocol* is an error. The caller holds the time limit.

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
            stream = client_tls(stream, ssl_context, parts.hostname)
            await shake_hands(stream, parts.hostname)
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        host = parts.netloc.rpartition("@")[2]
        async with request_websocket(
            stream, host, path, headers=headers, subprotocol=subprotocol
        ) as websocket:
            yield websocket
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def request_websocket(
    stream: trio.abc.Stream,
    host: str,
    path: str = "/",
    *,
    headers: Sequence[tuple[str, str]] = (),
    subprotocol: str | None = None,
) -> AsyncGenerator[WebSocket, None]:
    """Ask for an upgrade on *stream*, to *host*, and yield the open WebSocket; it is closed with the block.

    Raises:
      WebSocketRejectedError: the server answered, but did not upgrade.
      WebSocketError: it hung up, or spoke of something else.

    """
    gathering = GatheringStream(stream)
    connection = _BatchingConnection(
        gathering,
        FastConnection(ConnectionType.CLIENT),
        host=host,
        path=path,
        client_extra_headers=[(name.encode(), value.encode()) for name, value in headers],
        client_subprotocols=None if subprotocol is None else [subprotocol],
    )
    async with _running(connection, host) as reader:
        await reader.wait_open()
        if subprotocol is not None and connection.subprotocol != subprotocol:
            raise WebSocketError(f"{host} does not speak {subprotocol}")
        yield WebSocket(connection, gathering, path)


@asynccontextmanager
async def accept_websocket(
    stream: trio.abc.Stream, *, initial: bytes = b"", subprotocol: str | None = None
) -> AsyncGenerator[WebSocket, None]:
    """Accept the upgrade that arrives on *stream* and yield the WebSocket; it is closed with the block.

    *initial* is what was read from the stream already: the head of the upgrade request, or its beginning. The
    *subprotocol* must be among those that the client offers.

    Raises:
      WebSocketError: the client asked for something else, or hung up.

    """
    gathering = GatheringStream(ReplayedStream(stream, initial) if initial else stream)
    connection = _BatchingConnection(gathering, FastConnection(ConnectionType.SERVER))
    async with _running(connection, "the client") as reader:
        yield WebSocket(connection, gathering, await reader.accept(subprotocol))


@attrs.define(eq=False)
class _Reader:
    """The task that reads for a connection, and how the upgrade went."""

    connection: _BatchingConnection
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
            self.failure = _rejected(exc)
        except (h11.LocalProtocolError, LocalProtocolError):
            # What it says of itself holds what we would have sent: a token, or a part of it.
            self.failure = WebSocketError(f"{self.peer}: what is to be sent cannot be said in HTTP")
        except (
            ConnectionClosed,
            ProtocolError,
            h11.ProtocolError,
            UnicodeError,
            ssl.SSLError,
            OSError,
        ) as exc:
            # wsproto decodes some headers without a thought of what they may hold.
            self.failure = WebSocketError(f"{self.peer}: {printable(str(exc))}")
            self.failure.__cause__ = exc
        finally:
            self._settled.set()
            self.connection.wake_all()

    async def wait_open(self) -> None:
        async def opened() -> None:
            await self.connection._open_handshake.wait()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self._settled.set()

        async with open_background() as nursery:
            nursery.start_soon(opened)
            await self._settled.wait()
        if not self.connection._open_handshake.is_set():  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            raise self.failure or WebSocketError(f"{self.peer} hung up, or did not answer with HTTP")

    async def accept(self, subprotocol: str | None) -> str:
        proposed: list[WebSocketRequest] = []

        async def propose() -> None:
            proposed.append(await self.connection._get_request())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            self._settled.set()

        async with open_background() as nursery:
            nursery.start_soon(propose)
            await self._settled.wait()
        if not proposed:
            raise self.failure or WebSocketError(f"{self.peer} did not ask for a WebSocket")
        if subprotocol is not None and subprotocol not in proposed[0].proposed_subprotocols:
            await proposed[0].reject(426, body=f"this is {subprotocol}\n".encode())
            raise WebSocketError(f"{self.peer} does not speak {subprotocol}")
        try:
            await proposed[0].accept(subprotocol=subprotocol)
        except ConnectionClosed as exc:
            raise _closed(exc) from exc
        return proposed[0].path


@asynccontextmanager
async def _running(connection: _BatchingConnection, peer: str) -> AsyncGenerator[_Reader, None]:
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
            await _close(connection)
            reading.cancel()


class _BatchingConnection(WebSocketConnection):
    """trio-websocket's connection, whose reader hands messages over without a task switch for each.

    `_handle_message_event` is what it calls for a message. Its own channel of messages is but a bell here.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  # trio-websocket's own
        super().__init__(*args, **options, max_message_size=MAX_MESSAGE, receive_buffer_size=READ_SIZE)
        self._inbox: list[str | bytes] = []
        self._inbox_size = 0
        self._room = trio.Event()
        self._dropping = False

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        if self._dropping:
            return
        if self._message_size + len(event.data) > MAX_MESSAGE:
            # It closes with code 1009.
            await super()._handle_message_event(event)
            return
        self._message_size += len(event.data)
        self._message_parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
        if not event.message_finished:
            return
        if isinstance(event, BytesMessage):
            self._inbox.append(b"".join(cast("list[bytes]", self._message_parts)))
        else:
            self._inbox.append("".join(cast("list[str]", self._message_parts)))
        self._inbox_size += self._message_size
        self._message_size = 0
        self._message_parts = []
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self._send_channel.send_nowait("")
        if self._inbox_size > MAX_INBOX:
            self._room = trio.Event()
            await self._room.wait()

    async def take_messages(self) -> list[str | bytes]:
        """Return all messages that are here, waiting for the first; raises `ConnectionClosed`."""
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            await self.get_message()
        messages, self._inbox, self._inbox_size = self._inbox, [], 0
        self._room.set()
        return messages

    def drop_messages(self) -> None:
        """Take no more messages: nobody reads them, and the answer to our close frame comes behind them."""
        self._dropping = True
        self._room.set()

    async def send_messages(self, messages: Sequence[bytes]) -> None:
        """Send binary messages in one piece; raises `ConnectionClosed`."""
        if self.closed is not None:
            raise ConnectionClosed(self.closed)
        await self._send(BinaryMessages(messages))

    def wake_all(self) -> None:
        """Wake who waits for a pong, or for the peer's close frame: with the reader gone, none will come."""
        self._close_handshake.set()
        for answered in self._pings.values():
            answered.set()
