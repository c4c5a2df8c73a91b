"""What becomes of requests: over memory in virtual time, and with a real target."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tunnel_relay.performing import RequestNotDoneError, connect_tcp, perform, to_services
from tunnel_relay.protocol.requests import MAX_REQUEST, Request, Response, Status
from tunnel_relay.record import Outcome

Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
Behave = Callable[[Stream], Awaitable[None]]


def request(payload: bytes = b"hello", most: int = 1000, time: float = 30.0) -> Request:
    return Request(id="id", target="db", payload=payload, most=most, time=time)


def outcome(status: Status, payload: bytes = b"", detail: str = "", *, acted: bool = True) -> Outcome:
    return Outcome(Response(id="id", status=status, payload=payload, detail=detail), acted)


async def perform_at(behave: Behave, asked: Request) -> Outcome:
    """Do a request at a target that behaves so."""
    async with trio.open_nursery() as nursery:

        async def connect(target: str) -> trio.abc.HalfCloseableStream:
            assert target == "db"
            near, far = memory_stream_pair()
            nursery.start_soon(behave, far)
            return near

        result = await perform(asked, connect)
        # Long enough for every target that ends at all.
        nursery.cancel_scope.deadline = trio.current_time() + 10
    return result


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    read = bytearray()
    async for data in stream:
        read += data
    return bytes(read)


async def reverse(stream: Stream) -> None:
    """Say all that was heard the other way round, and the end."""
    await stream.send_all((await read_all(stream))[::-1])
    await stream.send_eof()


async def test_the_target_hears_the_payload_and_the_end_and_its_answer_is_the_response() -> None:
    assert await perform_at(reverse, request()) == outcome(Status.DONE, b"olleh")
    assert await perform_at(reverse, request(b"")) == outcome(Status.DONE, b"")


async def test_a_target_may_answer_while_it_hears() -> None:
    async def echo(stream: Stream) -> None:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()

    payload = bytes(range(256)) * 4096
    assert await perform_at(echo, request(payload, most=len(payload))) == outcome(Status.DONE, payload)


async def test_a_target_that_ends_first_still_hears_all() -> None:
    heard: list[bytes] = []

    async def end_first(stream: Stream) -> None:
        await stream.send_eof()
        heard.append(await read_all(stream))

    assert await perform_at(end_first, request()) == outcome(Status.DONE, b"")
    assert heard == [b"hello"]


@pytest.mark.parametrize(("most", "status"), [(5, Status.DONE), (4, Status.TOO_LONG), (0, Status.TOO_LONG)])
async def test_no_more_is_read_than_the_request_allows(most: int, status: Status) -> None:
    detail = "" if status is Status.DONE else f"the target said more than {most} bytes"
    assert await perform_at(reverse, request(most=most)) == outcome(status, b"olleh"[:most], detail)


async def test_a_target_that_never_ends_is_left_in_time(autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    await far.send_all(b"so far")

    async def connect(target: str) -> trio.abc.HalfCloseableStream:
        del target
        return near

    began = trio.current_time()
    detail = "the target has not done with it after 2.5 s"
    result = await perform(request(time=2.5), connect)
    assert result == outcome(Status.TIMED_OUT, b"so far", detail)
    assert trio.current_time() - began == pytest.approx(2.5)
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"more")


async def test_a_connection_that_takes_too_long_is_no_act(autojump_clock: MockClock) -> None:
    async def connect(target: str) -> trio.abc.HalfCloseableStream:
        await trio.sleep_forever()
        raise AssertionError

    result = await perform(request(), connect)
    detail = "the target has not done with it after 30 s"
    assert result == outcome(Status.TIMED_OUT, b"", detail, acted=False)


async def with_target(serve: Callable[[trio.SocketStream], Awaitable[None]], asked: Request) -> Outcome:
    """Do a request at a real target."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        address: tuple[str, int] = listeners[0].socket.getsockname()
        result = await perform(asked, to_services({"db": address}))
        nursery.cancel_scope.cancel()
    return result


async def test_the_longest_go_through_a_real_target() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all((await read_all(stream))[::-1])

    payload = bytes(MAX_REQUEST - 1) + b"x"
    assert await with_target(serve, request(payload, most=MAX_REQUEST)) == outcome(Status.DONE, payload[::-1])


async def test_a_target_that_breaks_the_connection_is_told_of() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        linger = bytes((1, 0, 0, 0)) + bytes(4)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    result = await with_target(serve, request(bytes(1_000_000)))
    assert (result.response.status, result.acted) == (Status.BROKEN, True)


async def test_nobody_reaches_what_is_not_offered() -> None:
    result = await perform(request(), to_services({"ssh": ("127.0.0.1", 22)}))
    assert result == outcome(Status.NO_SUCH_TARGET, b"", "no service 'db' is offered", acted=False)


async def test_a_refusal_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = await perform(request(), to_services({"db": unused.getsockname()}))
    assert result == outcome(Status.REFUSED, b"", "the target refused the connection", acted=False)


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
NO_WAY = OSError(errno.ENETUNREACH, "no way")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Status.UNREACHABLE),
        (UnicodeError("label empty or too long"), Status.UNREACHABLE),
        (NO_WAY, Status.UNREACHABLE),
        (TimeoutError(errno.ETIMEDOUT, "slow"), Status.TIMED_OUT),
        (ExceptionGroup("two", [NO_WAY, REFUSED]), Status.REFUSED),
        (OSError(errno.EMFILE, "too many files"), Status.FAILED),
    ],
)
async def test_why_a_connection_did_not_come_about(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: Status
) -> None:
    async def fail(*_: object) -> None:
        if isinstance(error, ExceptionGroup):
            raise OSError("all attempts failed") from error
        raise error

    monkeypatch.setattr(trio, "open_tcp_stream", fail)
    with pytest.raises(RequestNotDoneError) as caught:
        await connect_tcp("host.test", 1)
    assert caught.value.status is status


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_addresses_and_names_are_connected_to(host: str) -> None:
    listeners = await trio.open_tcp_listeners(0, host=host if host != "localhost" else "127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with await connect_tcp(host, port) as stream, await listeners[0].accept() as far:
        await stream.send_all(b"hello")
        assert await far.receive_some() == b"hello"
    await listeners[0].aclose()


async def test_where_nobody_listens_it_says_so() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(RequestNotDoneError) as caught:
        await connect_tcp("127.0.0.1", port)
    assert caught.value.status is Status.REFUSED
