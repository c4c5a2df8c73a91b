from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.errors import BadAnswerError
from session_proxy.protocol.http_connect import (
    ESTABLISHED,
    MAX_HEAD,
    Credentials,
    Event,
    Forward,
    HttpRefusalError,
    HttpServer,
    Tunnel,
    credentials,
    refusal,
    split_absolute,
)
from session_proxy.target import Target

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
GET = b"GET http://example.com/path?q=1 HTTP/1.1\r\nHost: other\r\nAccept: */*\r\n\r\n"
POST = b"POST http://example.com:8080/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\nbody"
BASIC = b"Basic " + base64.b64encode(b"user:pa:ss")


def drive(server: HttpServer, pieces: Iterable[bytes]) -> list[Event]:
    events: list[Event] = []
    for piece in pieces:
        server.receive_data(piece)
        while (event := server.next_event()) is not None:
            events.append(event)
    return events


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_tunnel_is_the_same_in_any_fragmentation(step: int) -> None:
    server = HttpServer()

    events = drive(server, cut(CONNECT + b"\x16\x03\x01hello", step))

    assert events[0] == Tunnel(Target("example.com", 443), None)
    assert server.trailing_data() == b"\x16\x03\x01hello"
    assert not server.takes_data


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_request_with_a_body_is_the_same_in_any_fragmentation(step: int) -> None:
    events = drive(HttpServer(), cut(POST, step))

    request = events[0]
    assert isinstance(request, Forward)
    assert request.target == Target("example.com", 8080)
    assert (request.method, request.authority, request.path) == (b"POST", b"example.com:8080", b"/")
    assert b"".join(event.data for event in events if isinstance(event, h11.Data)) == b"body"
    assert isinstance(events[-1], h11.EndOfMessage)


def test_one_request_follows_another() -> None:
    server = HttpServer()
    first = drive(server, [GET + GET])
    assert not server.takes_data
    assert not server.has_responded
    head = server.respond(h11.Response(status_code=200, headers=[(b"Content-Length", b"2")]))
    assert server.has_responded
    server.respond(h11.Data(b"ok"))
    server.respond(h11.EndOfMessage())

    assert head.startswith(b"HTTP/1.1 200")
    assert server.next_request()
    assert server.next_event() == first[0]


def test_a_request_that_closes_is_the_last() -> None:
    server = HttpServer()
    drive(server, [GET.replace(b"Accept: */*", b"Connection: close")])
    server.respond(h11.Response(status_code=204, headers=[]))
    server.respond(h11.EndOfMessage())
    assert not server.next_request()


def test_a_client_that_leaves_between_requests_gives_no_event() -> None:
    server = HttpServer()
    assert drive(server, [b""]) == []
    assert not server.takes_data


@pytest.mark.parametrize(
    "data",
    [
        b"GET http://h/ HTTP/1.1\r\nHost: h\r\nProxy-Authorization : Basic dTpzM2NyM3Q=\r\n\r\n",
        b"GET http://h/ HTTP/1.1\r\nHost: h\r\nProxy-Authorization: Basic dTpzM2NyM3Q=\0\r\n\r\n",
        b"GET http://u:dTpzM2NyM3Q=@h/ a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://u:dTpzM2NyM3Q=@h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT u:dTpzM2NyM3Q=@h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET dTpzM2NyM3Q= HTTP/1.1 HTTP/1.1\r\n\r\n",
    ],
)
def test_a_refusal_quotes_nothing_that_may_be_secret(data: bytes) -> None:
    with pytest.raises(HttpRefusalError) as refused:
        drive(HttpServer(), [data])

    assert "dTpzM2NyM3Q" not in str(refused.value)
    assert "bytearray" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n", 400, "this is a proxy, not a web server"),
        (b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n", 400, "this is a proxy"),
        (b"GET example.com:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "this is a proxy"),
        (b"GET https://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 501, "https:// needs a tunnel"),
        (b"GET ftp://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 501, "ftp:// needs a tunnel"),
        (b"GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n", 400, "names no host"),
        (b"GET http://a b/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not HTTP/1.1"),
        (b"GET http://user:pw@example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "a user in the URL"),
        (b"GET http://example.com:0/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "0 is not a port"),
        (b"GET http://example.com:/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a port"),
        (b"GET http://example.com:x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "not a port"),
        (b"CONNECT example.com HTTP/1.1\r\nHost: x\r\n\r\n", 400, "CONNECT needs HOST:PORT"),
        (b"CONNECT :443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "the host is empty"),
        (b"CONNECT ::1:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "ambiguous"),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 400, "has no body"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1 and HTTP/1.0 only"),
        (b"GET http://a/ HTTP/3.1\r\n\r\n", 505, "HTTP/1.1 and HTTP/1.0 only"),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Host"),
        (b"HELO mail.example.com\r\n\r\n", 400, "not HTTP/1.1"),
        (
            b"GET http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            "a transfer coding other than",
        ),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "Content-Length"),
        (b"GET http://a/ HTTP/1.1\r\nHost : a\r\n\r\n", 400, "not HTTP/1.1"),
        (b"GET http://a/ HTTP/1.1\r\nX: " + b"x" * MAX_HEAD, 431, "a part of it is larger than 64 KiB"),
        (b"GET http://a/ HTTP/1.1\r\n\r\n", 400, "it has no Host header"),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "it has several Host headers"),
    ],
)
def test_what_cannot_be_served_has_a_status(data: bytes, status: int, message: str) -> None:
    with pytest.raises(HttpRefusalError, match=message) as caught:
        drive(HttpServer(), [data])
    assert caught.value.status == status
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"GET", b"http://example.com", (b"example.com", b"/")),
        (b"GET", b"HTTP://example.com/a?b", (b"example.com", b"/a?b")),
        (b"GET", b"http://example.com?b", (b"example.com", b"/?b")),
        (b"GET", b"http://example.com/a#b", (b"example.com", b"/a")),
        (b"GET", b"http://[::1]:80/", (b"[::1]:80", b"/")),
        (b"OPTIONS", b"http://example.com", (b"example.com", b"*")),
        (b"OPTIONS", b"http://example.com/", (b"example.com", b"/")),
        (b"GET", b"http://example.com/a://b", (b"example.com", b"/a://b")),
    ],
)
def test_an_absolute_target_is_split(method: bytes, target: bytes, expected: tuple[bytes, bytes]) -> None:
    assert split_absolute(method, target) == expected


@pytest.mark.parametrize(
    ("authority", "target"),
    [
        (b"example.com", Target("example.com", 80)),
        (b"EXAMPLE.com:81", Target("example.com", 81)),
        (b"[::1]", Target("::1", 80)),
        (b"[::1]:81", Target("::1", 81)),
        (b"192.0.2.7", Target("192.0.2.7", 80)),
    ],
)
def test_the_port_of_an_url_is_80_where_it_has_none(authority: bytes, target: Target) -> None:
    (request, _) = drive(HttpServer(), [b"GET http://" + authority + b"/ HTTP/1.1\r\nHost: a\r\n\r\n"])
    assert isinstance(request, Forward)
    assert request.target == target


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (BASIC, Credentials(b"user", b"pa:ss")),
        (BASIC.replace(b"Basic ", b"basic   "), Credentials(b"user", b"pa:ss")),
        (b"Basic", None),
        (b"Basic !!!!", None),
        (b"Basic " + base64.b64encode(b"no colon"), None),
        (b"Bearer " + base64.b64encode(b"user:pass"), None),
    ],
)
def test_basic_credentials_are_read(value: bytes, expected: Credentials | None) -> None:
    assert credentials([(b"Accept", b"*/*"), (b"Proxy-Authorization", value)]) == expected


def test_there_may_be_no_credentials() -> None:
    assert credentials([(b"Authorization", BASIC)]) is None


def test_credentials_show_nowhere() -> None:
    server = HttpServer()
    (event, _) = drive(server, [GET.replace(b"Accept: */*", b"Proxy-Authorization: " + BASIC)])
    for text in (repr(event), repr(server)):
        assert "pa:ss" not in text
        assert BASIC.decode() not in text


def test_a_refusal_is_a_whole_response() -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())

    client.receive_data(refusal(407, "who are you"))

    response, body = client.next_event(), client.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == 407
    assert (b"proxy-authenticate", b'Basic realm="session-proxy"') in response.headers
    assert isinstance(body, h11.Data)
    assert body.data == b"session-proxy: who are you\n"
    assert isinstance(client.next_event(), h11.EndOfMessage)


def test_a_refusal_of_head_has_no_body() -> None:
    assert refusal(502, "gone", method=b"HEAD").endswith(b"\r\n\r\n")
    assert b"Proxy-Authenticate" not in refusal(502, "gone")


def test_an_answer_that_cannot_be_passed_on_is_the_servers_fault() -> None:
    server = HttpServer()
    drive(server, [GET])
    with pytest.raises(BadAnswerError, match="cannot be passed on"):
        server.respond(h11.InformationalResponse(status_code=101, headers=[]))
    assert not server.has_responded, "the client can be told"


def test_a_tunnels_answer_has_no_body() -> None:
    assert ESTABLISHED.endswith(b"\r\n\r\n")


PIECES = st.sampled_from(
    [CONNECT, GET, POST, b"GET http://", b" HTTP/1.1\r\n", b"Host: a\r\n\r\n", b"0\r\n\r\n", b""]
)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=300)), max_size=6))
def test_arbitrary_bytes_raise_nothing_but_the_documented_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(HttpRefusalError):
        ended = pieces.index(b"") + 1 if b"" in pieces else len(pieces)
        drive(HttpServer(), pieces[:ended])


@given(st.binary(max_size=80))
def test_an_arbitrary_target_raises_nothing_but_the_documented_error(target: bytes) -> None:
    for line in (b"GET http://" + target, b"CONNECT " + target, b"GET " + target):
        with contextlib.suppress(HttpRefusalError):
            drive(HttpServer(), [line + b" HTTP/1.1\r\nHost: a\r\n\r\n"])
