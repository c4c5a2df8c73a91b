from __future__ import annotations

import h11
import pytest
import trio
import trio.testing

from session_proxy.errors import BadAnswerError
from session_proxy.inbound.http_origin import NoAnswerError, Origin, encode_request
from session_proxy.inbound.relaying import Traffic
from session_proxy.target import Target

GET = h11.Request(method="GET", target="/", headers=[("Host", "example.com")])
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def pair() -> tuple[Origin, trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]:
    near, far = trio.testing.memory_stream_pair()
    return Origin(Target("example.com", 80), near, Traffic()), far.send_stream, far.receive_stream


async def ask(origin: Origin) -> None:
    await origin.send(GET)
    await origin.send(h11.EndOfMessage())


async def test_a_request_gets_its_response_and_both_are_counted() -> None:
    origin, sends, receives = pair()
    await ask(origin)
    request = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    assert await receives.receive_some() == request
    for at in range(len(RESPONSE)):
        await sends.send_all(RESPONSE[at : at + 1])

    assert isinstance(await origin.next_event(), h11.Response)
    body = b""
    while isinstance(event := await origin.next_event(), h11.Data):
        body += event.data
    assert body == b"ok"
    assert isinstance(event, h11.EndOfMessage)
    assert origin.traffic == Traffic(len(request), len(RESPONSE))
    assert origin.is_clean
    assert origin.next_request()
    assert not origin.has_answered


async def test_a_request_that_it_has_got_is_not_sent_by_us() -> None:
    """Its answer may be there already when we look."""
    origin, sends, receives = pair()
    assert not origin.is_asked
    assert encode_request(GET) == b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    origin.has_got(GET)
    assert origin.is_asked
    await sends.send_all(RESPONSE)
    while not isinstance(await origin.next_event(), h11.EndOfMessage):
        pass
    assert origin.next_request()
    assert not origin.is_asked
    await ask(origin)
    assert await receives.receive_some() == encode_request(GET)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        RESPONSE + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
    ],
)
async def test_a_connection_with_ambiguous_answers_is_not_used_again(response: bytes) -> None:
    """What a server says beyond its answer would be the answer to the next request."""
    origin, sends, _ = pair()
    await ask(origin)
    await sends.send_all(response)
    while not isinstance(await origin.next_event(), h11.EndOfMessage):
        pass
    assert not origin.next_request()


async def test_a_response_until_the_connection_closes_ends_with_it() -> None:
    origin, sends, _ = pair()
    await ask(origin)
    await sends.send_all(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    await sends.aclose()
    await origin.next_event()
    data = await origin.next_event()
    assert isinstance(data, h11.Data)
    assert isinstance(await origin.next_event(), h11.EndOfMessage)
    assert not origin.next_request()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200", b"HTTP/1.1 99 No\r\n\r\n"])
async def test_no_answer_is_told_apart(answer: bytes) -> None:
    origin, sends, _ = pair()
    await ask(origin)
    await sends.send_all(answer)
    await sends.aclose()
    with pytest.raises(NoAnswerError, match=r"example\.com:80"):
        await origin.next_event()


async def test_a_connection_that_breaks_before_the_answer_is_none() -> None:
    origin, sends, _ = pair()
    await ask(origin)
    sends.close()
    with pytest.raises(NoAnswerError):
        await origin.next_event()


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (RESPONSE[:-1], "closed the connection before its answer was complete"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "closed the connection before its answer was complete"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n",
            "does not answer in HTTP/1.1: illegal chunk header",
        ),
    ],
)
async def test_a_response_that_goes_wrong_in_the_middle_is_bad(response: bytes, problem: str) -> None:
    """What is wrong is said without the server's bytes."""
    origin, sends, _ = pair()
    await ask(origin)
    await sends.send_all(response)
    await sends.aclose()

    async def read() -> None:
        while not isinstance(await origin.next_event(), h11.EndOfMessage):
            pass

    with pytest.raises(BadAnswerError) as caught:
        await read()
    assert str(caught.value) == f"example.com:80 {problem}"
    assert not isinstance(caught.value, NoAnswerError), "nothing may be repeated now"


async def test_a_server_that_has_closed_before_it_was_asked_gives_no_answer() -> None:
    """So it may be when the request goes out on a connection that was kept."""
    origin, sends, _ = pair()
    await sends.aclose()
    with pytest.raises(NoAnswerError):
        await origin.next_event()


async def test_a_stream_that_breaks_is_no_answer_or_a_bad_one() -> None:
    async def break_off() -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    near, _ = trio.testing.memory_stream_pair()
    near.receive_stream.receive_some_hook = break_off
    origin = Origin(Target("example.com", 80), near, Traffic())
    await ask(origin)
    with pytest.raises(NoAnswerError, match="closed the connection before"):
        await origin.next_event()
    origin.has_answered = True
    with pytest.raises(BadAnswerError) as caught:
        await origin.next_event()
    assert not isinstance(caught.value, NoAnswerError), "nothing may be repeated now"


async def test_what_follows_a_switch_of_protocols_is_kept() -> None:
    origin, sends, _ = pair()
    await origin.send(
        h11.Request(
            method="GET",
            target="/",
            headers=[("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")],
        )
    )
    await origin.send(h11.EndOfMessage())
    await sends.send_all(
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00"
    )
    event = await origin.next_event()
    assert isinstance(event, h11.InformationalResponse)
    assert origin.trailing_data() == b"\x81\x00"
