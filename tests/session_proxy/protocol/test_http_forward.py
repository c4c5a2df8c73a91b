from __future__ import annotations

import h11
import pytest

from session_proxy.protocol.http_connect import Forward, HttpRefusalError, HttpServer
from session_proxy.protocol.http_forward import (
    answer_here,
    end_to_end,
    has_body,
    has_two_lengths,
    hops_left,
    interim_for_client,
    request_for_origin,
    response_for_client,
    tokens,
)


def request(*lines: str, method: str = "GET") -> Forward:
    server = HttpServer()
    head = [f"{method} http://Example.com:81/a?b HTTP/1.1", "Host: other", *lines, "", ""]
    server.receive_data("\r\n".join(head).encode())
    event = server.next_event()
    assert isinstance(event, Forward)
    return event


def fields(passed: h11.Request | h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
    """Return the header of a message that is *passed* on, but for what names us as its last hop."""
    header = passed.headers.raw_items()
    header.remove((b"Via", b"1.1 sproxy"))
    return header


def test_the_origin_server_sees_its_own_host_and_path() -> None:
    event = request_for_origin(request("Accept: text/html"))

    assert event.target == b"/a?b"
    assert fields(event) == [(b"Host", b"Example.com:81"), (b"Accept", b"text/html")]


def test_what_concerns_one_connection_is_not_passed_on() -> None:
    event = request_for_origin(
        request(
            "Connection: keep-alive, X-Private",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic c2VjcmV0OnNlY3JldA==",
            "TE: trailers",
            "Trailer: X",
            "X-Private: 1",
            "X-Public: 2",
        )
    )

    assert fields(event)[1:] == [(b"X-Public", b"2")]


def test_a_message_with_two_lengths_is_passed_on_with_one() -> None:
    """RFC 9112, section 6.3: whoever passes both on helps to smuggle a request past the next server."""
    event = request_for_origin(request("Content-Length: 3", "Transfer-Encoding: chunked"))
    assert fields(event)[1:] == [(b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize(
    ("method", "lines", "hops"),
    [
        ("TRACE", ("Max-Forwards: 10",), 10),
        ("OPTIONS", ("max-forwards: 0",), 0),
        ("OPTIONS", ("Max-Forwards: 1", "Max-Forwards: 1"), 1),
        ("TRACE", (), None),
        ("GET", ("Max-Forwards: 0",), None),
    ],
)
def test_hops_are_counted_for_two_methods(method: str, lines: tuple[str, ...], hops: int | None) -> None:
    assert hops_left(request(*lines, method=method)) == hops


@pytest.mark.parametrize(
    "lines", [("Max-Forwards: x",), ("Max-Forwards: -1",), ("Max-Forwards: " + 10 * "9",)]
)
def test_hops_that_are_no_number_are_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(HttpRefusalError, match="Max-Forwards is not a number") as refused:
        hops_left(request(*lines, method="TRACE"))
    assert refused.value.status == 400


def test_a_request_that_is_passed_on_has_a_hop_less() -> None:
    event = request_for_origin(request("Max-Forwards: 3", method="TRACE"))
    assert fields(event)[1:] == [(b"Max-Forwards", b"2")]
    event = request_for_origin(request("Max-Forwards: 3"))
    assert fields(event)[1:] == [(b"Max-Forwards", b"3")], "GET takes no part in it"


def test_a_trace_that_ends_here_shows_what_has_come_without_secrets() -> None:
    response, body = answer_here(
        request("X: 1", "Authorization: Basic x", "Cookie: a=b", "Max-Forwards: 0", method="TRACE")
    )
    assert body == (
        b"TRACE http://Example.com:81/a?b HTTP/1.1\r\nHost: other\r\nX: 1\r\nMax-Forwards: 0\r\n\r\n"
    )
    assert (b"content-type", b"message/http") in response.headers
    assert (b"content-length", b"%d" % len(body)) in response.headers


@pytest.mark.parametrize(("lines", "closes"), [((), False), (("Content-Length: 3",), True)])
def test_options_that_end_here_say_that_we_are_there(lines: tuple[str, ...], closes: bool) -> None:
    response, body = answer_here(request(*lines, method="OPTIONS"))
    assert (response.status_code, body) == (200, b"")
    assert ((b"connection", b"close") in response.headers) == closes


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((b"Content-Length",), False),
        ((b"Transfer-Encoding",), False),
        ((b"content-length", b"X", b"TRANSFER-ENCODING"), True),
    ],
)
def test_two_lengths_are_told(names: tuple[bytes, ...], expected: bool) -> None:
    assert has_two_lengths([(name, b"1") for name in names]) is expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), None),
        (("Upgrade: websocket",), None),
        (("Connection: Upgrade",), None),
        (("Connection: keep-alive, Upgrade", "Upgrade: websocket"), b"websocket"),
        (("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), None),
        (("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 3"), None),
        (("Connection: Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"), None),
    ],
)
def test_an_upgrade_is_offered_on_with_a_request_that_has_no_body(
    lines: tuple[str, ...], expected: bytes | None
) -> None:
    event = request(*lines)

    offered = dict(request_for_origin(event).headers.raw_items()).get(b"Upgrade")
    assert offered == expected


def test_a_response_is_framed_anew() -> None:
    response = h11.Response(
        status_code=200,
        reason=b"Fine",
        headers=[
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
            ("ETag", "x"),
            ("Content-Length", "3"),
        ],
    )

    passed = response_for_client(response)

    assert (passed.status_code, passed.reason) == (200, b"Fine")
    assert fields(passed) == [(b"ETag", b"x")]


def test_the_last_response_says_that_it_is() -> None:
    response = h11.Response(status_code=200, headers=[("Connection", "X"), ("X", "1"), ("ETag", "x")])
    passed = response_for_client(response, is_last=True)
    assert fields(passed) == [(b"ETag", b"x"), (b"Connection", b"close")]


def test_a_length_is_passed_on() -> None:
    response = h11.Response(status_code=200, headers=[("Content-Length", "3")])
    assert fields(response_for_client(response)) == [(b"Content-Length", b"3")]


def test_an_interim_response_keeps_its_upgrade() -> None:
    switch = h11.InformationalResponse(
        status_code=101, headers=[("Connection", "upgrade"), ("Upgrade", "websocket"), ("X", "1")]
    )
    assert fields(interim_for_client(switch)) == [
        (b"X", b"1"),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
    ]
    hints = h11.InformationalResponse(status_code=103, headers=[("Connection", "x"), ("Link", "<a>")])
    assert fields(interim_for_client(hints)) == [(b"Link", b"<a>")]


def test_tokens_of_all_fields_count() -> None:
    headers = [(b"Connection", b"a, B"), (b"Other", b"c"), (b"connection", b",d,")]
    assert tokens(headers, b"connection") == {b"a", b"b", b"d"}
    assert end_to_end([(b"A", b"1"), *headers], b"1.1") == [(b"Other", b"c"), (b"Via", b"1.1 sproxy")]


def test_a_message_tells_the_hops_that_it_took() -> None:
    """RFC 9110, section 7.6.3: each with the version of HTTP that came in there."""
    headers = [(b"Via", b"1.0 fred, 1.1 p.example.com")]
    assert end_to_end(headers, b"1.0") == [*headers, (b"Via", b"1.0 sproxy")]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [([], False), ([(b"Content-Length", b"0")], True), ([(b"transfer-encoding", b"chunked")], True)],
)
def test_a_length_announces_a_body(headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert has_body(headers) is expected
