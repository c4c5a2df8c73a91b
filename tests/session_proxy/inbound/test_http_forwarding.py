from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from session_proxy.events import ConnectionClosed
from session_proxy.inbound.client import serve_client
from session_proxy.profile.model import Limits
from session_proxy.target import Target
from tests.support.doors import FakeDialer, Open, open_door, open_inner_door
from tests.support.sockets import LOOPBACK, open_server, read_all, read_exactly, stream_pair

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

VIA = b"Via: 1.1 sproxy\r\n"

# What a client gets of it.
PASSED = OK.replace(b"\r\n\r\n", b"\r\n" + VIA + b"\r\n")


@attrs.define(eq=False)
class Server:
    """An origin server that answers each request with the next of *answers*, and keeps what it was asked.

    An answer of "" closes the connection, "reset" resets it; "100" waits for the body only behind that.
    """

    answers: list[bytes]
    asked: list[bytes] = attrs.field(factory=list[bytes])
    connections: int = 0
    port: int = 0

    @property
    def authority(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def get(self, *headers: str, method: str = "GET", path: str = "/", body: bytes = b"") -> bytes:
        """Return a request that a client sends to its proxy."""
        lines = [f"{method} http://{self.authority}{path} HTTP/1.1", "Host: elsewhere", *headers]
        return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        while (request := await self._request(stream)) is not None:
            self.asked.append(request)
            answer = self.answers.pop(0)
            if answer == b"reset":
                stream.setsockopt(
                    trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0))
                )
                return
            await stream.send_all(answer)
            if b"Content-Length" not in answer and b"chunked" not in answer and b"101" not in answer:
                return

    async def _request(self, stream: trio.SocketStream) -> bytes | None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await stream.receive_some()
            if not piece:
                return None
            data += piece
        if b"Expect: 100-continue" in data:
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        while (length and len(body) < int(length[1])) or (
            b"chunked" in head and not body.endswith(b"0\r\n\r\n")
        ):
            piece = await stream.receive_some()
            if not piece:
                return None
            body += piece
        return head + b"\r\n\r\n" + body


@asynccontextmanager
async def open_origin(*answers: bytes) -> AsyncGenerator[Server]:
    server = Server(list(answers))
    async with open_server(server.serve) as server.port:
        yield server


async def ask(door: Open, *requests: bytes) -> bytes:
    """Send *requests* over one connection, and return all that comes back."""
    async with await door.connect() as client:
        for request in requests:
            await client.send_all(request)
        await client.send_eof()
        return await read_all(client)


async def test_a_request_is_passed_on_in_origin_form() -> None:
    async with open_origin(OK) as server, open_door() as door:
        answer = await ask(door, server.get("Proxy-Connection: keep-alive", "X: 1", path="/a?b"))
        closed = await door.events.closed()
    head = f"GET /a?b HTTP/1.1\r\nHost: {server.authority}\r\nX: 1\r\n".encode()
    assert server.asked == [head + VIA + b"\r\n"]
    assert answer == PASSED
    assert (closed.protocol, closed.outcome, closed.upstream) == ("http", "ok", "direct")
    assert (closed.sent, closed.received) == (len(server.asked[0]), len(OK))


async def test_a_request_that_has_gone_ahead_is_not_sent_again() -> None:
    """The next one on the same connection is."""
    async with open_origin(OK, OK) as server, open_door(FakeDialer(takes_early=True)) as door:
        answer = await ask(door, server.get(path="/1"), server.get(path="/2"))
        closed = await door.events.closed()
    assert answer == 2 * PASSED
    assert [request.split()[1] for request in server.asked] == [b"/1", b"/2"]
    assert (server.connections, closed.sent) == (1, sum(map(len, server.asked)))


@pytest.mark.parametrize("headers", [["Content-Length: 2"], ["Content-Length: 0"]])
async def test_a_request_that_may_not_be_repeated_does_not_go_ahead(headers: list[str]) -> None:
    dialer = FakeDialer(takes_early=True)
    async with open_origin(OK) as server, open_door(dialer) as door:
        body = b"hi" if headers == ["Content-Length: 2"] else b""
        assert await ask(door, server.get(*headers, method="POST", body=body)) == PASSED
    assert (len(dialer.asked), dialer.ahead) == (1, b"")


@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_a_body_goes_up_in_any_fragmentation(step: int) -> None:
    async with open_origin(OK) as server, open_door() as door:
        request = server.get("Content-Length: 300", method="POST", body=b"x" * 300)
        pieces = [request[at : at + step] for at in range(0, len(request), step)]
        assert await ask(door, *pieces) == PASSED
    assert server.asked[0].endswith(b"\r\n\r\n" + b"x" * 300)


async def test_a_chunked_body_and_a_chunked_answer() -> None:
    body = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\n" + body
    async with open_origin(chunked) as server, open_door() as door:
        request = server.get("Transfer-Encoding: chunked", method="PUT", body=b"2\r\nhi\r\n0\r\n\r\n")
        assert await ask(door, request) == b"HTTP/1.1 200 OK\r\n" + VIA + body
    assert server.asked[0].endswith(b"Transfer-Encoding: chunked\r\n" + VIA + b"\r\n2\r\nhi\r\n0\r\n\r\n")


async def test_after_a_request_with_two_lengths_the_connection_is_closed() -> None:
    """RFC 9112, section 6.1: what follows may be meant to be part of it, by somebody who smuggles."""
    async with open_origin(OK, OK) as server, open_door() as door:
        request = server.get(
            "Content-Length: 3", "Transfer-Encoding: chunked", method="PUT", body=b"2\r\nhi\r\n0\r\n\r\n"
        )
        answer = await ask(door, request + server.get(path="/smuggled"))
    assert answer == PASSED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert [asked.partition(b" HTTP")[0] for asked in server.asked] == [b"PUT /"]
    assert b"Content-Length" not in server.asked[0]


async def test_a_request_that_may_go_no_further_is_answered_here() -> None:
    async with open_origin(OK) as server, open_door() as door:
        answer = await ask(
            door, *(server.get(f"Max-Forwards: {hops}", method="OPTIONS") for hops in (0, 1, 0))
        )
        closed = await door.events.closed()
    ours = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert answer == ours + PASSED + ours
    assert len(server.asked) == 1
    assert b"Max-Forwards: 0" in server.asked[0]
    assert (closed.outcome, str(closed.target)) == ("ok", server.authority)


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with open_origin(b"HTTP/1.0 200 OK\r\n\r\nall of it") as server, open_door() as door:
        answer = await ask(door, server.get())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nVia: 1.0 sproxy\r\n")
    assert answer.endswith(b"Transfer-Encoding: chunked\r\n\r\n9\r\nall of it\r\n0\r\n\r\n")


async def test_a_client_of_http_1_0_gets_no_chunks_and_no_interim_answers() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    async with open_origin(hints + chunked) as server, open_door() as door:
        answer = await ask(door, server.get().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer == b"HTTP/1.1 200 OK\r\n" + VIA + b"Connection: close\r\n\r\nhi"


async def test_requests_to_different_servers_share_the_clients_connection() -> None:
    async with open_origin(OK, OK) as one, open_origin(OK) as other, open_door() as door:
        answer = await ask(door, one.get(path="/1"), other.get(path="/2"), one.get(path="/3"))
        closed = await door.events.closed()
    assert answer == 3 * PASSED
    assert (len(one.asked), one.connections, len(other.asked)) == (2, 2, 1)
    assert closed.sent == sum(map(len, one.asked + other.asked))
    assert len(door.events.of(ConnectionClosed)) == 1


async def test_a_connection_to_a_server_is_kept_for_what_may_be_repeated() -> None:
    async with open_origin(OK, OK, OK) as server, open_door() as door:
        post = server.get("Content-Length: 1", method="POST", body=b"x")
        assert await ask(door, server.get(), server.get(), post) == 3 * PASSED
    assert server.connections == 2


@pytest.mark.parametrize("end", [b"", b"reset"])
async def test_a_kept_connection_that_has_closed_costs_a_new_one(end: bytes) -> None:
    """The server may close a connection at any time; a request that met it so has not been answered."""
    async with open_origin(OK, end, OK) as server, open_door() as door:
        assert await ask(door, server.get(), server.get()) == 2 * PASSED
    assert (len(server.asked), server.connections) == (3, 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"reset",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nOpenSSH : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: OpenSSH\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: OpenSSH\r\nConnection: Upgrade\r\n\r\n",
    ],
)
async def test_a_server_without_a_good_answer_is_502(answer: bytes) -> None:
    """It is nothing that the client did, and what the server said is not quoted."""
    async with open_origin(answer) as server, open_door() as door:
        got = await ask(door, server.get())
        closed = await door.events.closed()
    assert got.startswith(b"HTTP/1.1 502 ")
    assert f"session-proxy: {closed.detail}\n".encode() in got
    assert (closed.outcome, closed.upstream) == ("bad-answer", "direct")
    assert "OpenSSH" not in closed.detail


async def test_an_answer_that_breaks_off_resets_the_client() -> None:
    """Half an answer must not look like a whole one."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"

    async def break_off(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(half)
        await seen.wait()

    seen = trio.Event()
    async with open_server(break_off) as port, open_door() as door:
        async with await door.connect() as client:
            await client.send_all(Server([], port=port).get("Content-Length: 1", method="PUT", body=b"x"))
            assert (await read_exactly(client, len(half + VIA))).endswith(b"\r\n\r\nhalf")
            seen.set()
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some()
        closed = await door.events.closed()
    assert closed.outcome == "bad-answer"
    assert closed.detail.endswith("closed the connection before its answer was complete")


async def test_a_client_that_leaves_before_the_answer_is_complete_is_a_reset() -> None:
    async with open_door() as door:

        async def go_on(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                await stream.send_all(bytes(100_000))

        async with open_server(go_on) as port:
            async with await door.connect() as client:
                await client.send_all(Server([], port=port).get())
                await read_exactly(client, 100)
            closed = await door.events.closed()
    assert (closed.outcome, closed.detail) == ("reset", "the client left before its answer was complete")


async def test_expect_is_answered_by_the_server() -> None:
    async with open_origin(OK) as server, open_door() as door, await door.connect() as client:
        await client.send_all(server.get("Expect: 100-continue", "Content-Length: 4", method="PUT"))
        interim = b"HTTP/1.1 100 Continue\r\n" + VIA + b"\r\n"
        assert await read_exactly(client, len(interim)) == interim
        await client.send_all(b"body")
        assert await read_exactly(client, len(PASSED)) == PASSED
    assert server.asked[0].endswith(b"body")


async def test_a_server_may_answer_before_the_body_has_come() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"

    async def refuse(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(refusal)
        await trio.sleep_forever()

    async with open_server(refuse) as port, open_door() as door:
        head = (
            f"PUT http://{LOOPBACK}:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode()
        )
        async with await door.connect() as client:
            await client.send_all(head + bytes(1000))
            answer = await read_all(client)
        closed = await door.events.closed()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert closed.outcome == "ok"


async def test_a_websocket_is_relayed_after_its_upgrade() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

    async def serve(stream: trio.SocketStream) -> None:
        request = await stream.receive_some()
        assert b"Upgrade: websocket" in request
        await stream.send_all(switch + b"first")
        async for piece in stream:
            await stream.send_all(piece.upper())
        await stream.send_eof()

    async with open_server(serve) as port, open_door() as door:
        async with await door.connect() as client:
            await client.send_all(
                f"GET http://{LOOPBACK}:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n"
                "Upgrade: websocket\r\n\r\n".encode()
            )
            answer = b""
            while not answer.endswith(b"first"):
                answer += await client.receive_some()
            await client.send_all(b"frames")
            await client.send_eof()
            assert await read_all(client) == b"FRAMES"
        closed = await door.events.closed()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert closed.outcome == "ok"


async def test_a_server_that_switches_protocols_in_the_middle_of_a_request_is_not_followed() -> None:
    """What the client has still to send of its body would be taken for the new protocol."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"

    async def serve(stream: trio.SocketStream) -> None:
        assert b"Upgrade" not in await stream.receive_some()
        await stream.send_all(switch)
        await trio.sleep_forever()

    async with open_server(serve) as port, open_door() as door:
        async with await door.connect() as client:
            await client.send_all(
                f"POST http://{LOOPBACK}:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                "Upgrade: x\r\nContent-Length: 9\r\n\r\nhalf".encode()
            )
            assert (await read_all(client)).startswith(b"HTTP/1.1 502 ")
        assert (await door.events.closed()).outcome == "bad-answer"


async def test_a_body_that_is_none_is_400() -> None:
    async with open_origin(OK) as server, open_door() as door:
        request = server.get("Transfer-Encoding: chunked", method="PUT", body=b"zz\r\n")
        got = await ask(door, request)
        closed = await door.events.closed()
    assert got.startswith(b"HTTP/1.1 400 ")
    assert closed.outcome == "protocol-error"


async def test_a_client_that_leaves_in_the_middle_of_its_body_ends_the_request() -> None:
    async with open_origin(OK) as server, open_door() as door:
        async with await door.connect() as client:
            await client.send_all(server.get("Content-Length: 9", method="PUT", body=b"half"))
        closed = await door.events.closed()
    assert closed.outcome == "protocol-error"
    assert server.asked == []


async def test_what_is_idle_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    one, other = trio.testing.memory_stream_pair()
    dialer = FakeDialer()
    async with open_inner_door(dialer, limits=Limits(idle=60)) as (door, events):
        dialer.answers[Target("example.com", 80)] = one
        with stream_pair() as (client, near):
            await client.send_all(b"GET http://example.com/ HTTP/1.1\r\nHost: a\r\n\r\n")
            await serve_client(door, near, "somebody")
            assert (await other.receive_some()).startswith(b"GET / HTTP/1.1")
    assert events.of(ConnectionClosed)[0].outcome == "idle-timeout"


async def test_between_requests_a_client_may_leave_or_be_sent_away() -> None:
    async with open_origin(OK, OK) as server, open_door(limits=Limits(drain=30)) as door:
        async with await door.connect() as client:
            await client.send_all(server.get())
            assert await read_exactly(client, len(PASSED)) == PASSED
        assert (await door.events.closed()).outcome == "ok"
        async with await door.connect() as client:
            await client.send_all(server.get())
            assert await read_exactly(client, len(PASSED)) == PASSED
            door.stop.set()
            assert await read_all(client) == b""
        with trio.fail_after(5):
            await door.done.wait()
        assert (await door.events.closed(2)).outcome == "ok"
