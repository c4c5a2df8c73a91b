"""Use the lab's targets as a client would, and check every byte that comes back."""

from __future__ import annotations

import functools
import hashlib
import statistics
from collections.abc import Callable, Iterator

import h11
import trio

from session_proxy.errors import SessionProxyError
from session_proxy.lab.targets import BLOCK, PAGE

READ_SIZE = 256 * 1024
PING = bytes(range(64))


class WrongAnswerError(SessionProxyError):
    """A target was reached, but what came back is not what it sends."""


async def fetch_page(stream: trio.abc.Stream) -> int:
    """Fetch the HTTP target's page; returns how many bytes were checked. Raises `WrongAnswerError`."""
    page = bytearray()
    await exchange(stream, "GET", "/", page.extend)
    if bytes(page) != PAGE:
        raise WrongAnswerError(f"the page differs: {len(page)} bytes, not the {len(PAGE)} expected")
    return len(page)


async def download(stream: trio.abc.Stream, length: int) -> int:
    """Fetch *length* bytes of the pattern and compare each; returns *length*. Raises `WrongAnswerError`."""
    position = 0

    def compare(piece: bytes) -> None:
        nonlocal position
        offset = position % 256
        if piece != BLOCK[offset : offset + len(piece)]:
            raise WrongAnswerError(f"wrong bytes after position {position}")
        position += len(piece)

    await exchange(stream, "GET", f"/bytes/{length}", compare)
    if position != length:
        raise WrongAnswerError(f"the download ended after {position} of {length} bytes")
    return length


async def upload(stream: trio.abc.Stream, length: int) -> int:
    """Send *length* bytes and compare the SHA-256 that comes back; returns *length*."""
    answer = bytearray()
    await exchange(stream, "PUT", "/upload", answer.extend, length)
    if bytes(answer) != pattern_digest(length).encode():
        raise WrongAnswerError(f"the target received other bytes than the {length} sent")
    return length


async def ping(stream: trio.abc.Stream, count: int) -> float:
    """Return the median of *count* round trips to the echo target, in seconds. Raises `WrongAnswerError`."""
    took: list[float] = []
    for _ in range(count):
        began = trio.current_time()
        await stream.send_all(PING)
        echo = b""
        while len(echo) < len(PING):
            piece = await stream.receive_some(len(PING) - len(echo))
            if not piece:
                raise WrongAnswerError("the echo target closed the connection")
            echo += piece
        if echo != PING:
            raise WrongAnswerError("the echo differs from what was sent")
        took.append(trio.current_time() - began)
    return statistics.median(took)


def pattern(length: int) -> Iterator[bytes]:
    """Yield the *length* bytes 0, 1, …, 255, 0, … in pieces."""
    for start in range(0, length, READ_SIZE):
        yield BLOCK[: min(READ_SIZE, length - start)]


@functools.cache
def pattern_digest(length: int) -> str:
    """Return the SHA-256 of *length* bytes of the pattern; worked out once, for it takes its time."""
    digest = hashlib.sha256()
    for piece in pattern(length):
        digest.update(piece)
    return digest.hexdigest()


async def exchange(
    stream: trio.abc.Stream, method: str, path: str, take: Callable[[bytes], None], length: int = 0
) -> None:
    """Send a request, with *length* bytes of the pattern as its body; *take* gets the answer's body.

    Raises:
      WrongAnswerError: the answer is no success, or not HTTP, or cut short.

    """
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", "lab"), ("Content-Length", str(length)), ("Connection", "close")]
    request = h11.Request(method=method, target=path, headers=headers)
    try:
        await stream.send_all(connection.send(request) or b"")
        for piece in pattern(length):
            await stream.send_all(piece)
        left = await _receive_head(stream, connection)
        piece = connection.trailing_data[0]
        while left:
            take(piece[:left])
            left -= min(len(piece), left)
            if left and not (piece := bytes(await stream.receive_some(READ_SIZE))):
                raise WrongAnswerError(f"{method} {path}: the answer is {left} bytes short")
    except h11.RemoteProtocolError as exc:
        raise WrongAnswerError(f"{method} {path} was answered by no HTTP server") from exc
    except trio.BrokenResourceError as exc:
        raise WrongAnswerError(f"{method} {path}: the connection broke") from exc


async def _receive_head(stream: trio.abc.Stream, connection: h11.Connection) -> int:
    """Receive the head of the answer; return how long its body is. The body is left to the caller."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(bytes(await stream.receive_some(READ_SIZE)))
    if not isinstance(event, h11.Response) or event.status_code != 200:
        status = event.status_code if isinstance(event, h11.Response) else "none"
        raise WrongAnswerError(f"the answer's status is {status}, not 200")
    return int(dict(event.headers)[b"content-length"])
