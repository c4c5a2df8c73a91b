"""The transcripts below are written as RFC 1928 and RFC 1929 describe them."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from session_proxy.errors import ClientProtocolError
from session_proxy.protocol.cursor import Cursor
from session_proxy.protocol.socks5 import (
    Connect,
    Credentials,
    Event,
    NoCredentialsError,
    Reply,
    Socks5Server,
    UdpAssociate,
    encode_address,
    read_address,
)
from session_proxy.target import Target

ANONYMOUS = b"\x05\x01\x00"  # version, one method: none
GREETING = b"\x05\x02\x00\x02"  # version, two methods: none, username/password
CREDENTIALS = b"\x01\x04user\x06secret"
CONNECT = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"
EXAMPLE = Connect(Target("example.com", 443))


def drive(server: Socks5Server, pieces: Iterable[bytes]) -> list[Event]:
    """Feed *pieces*, accept any credentials, and return the events."""
    events: list[Event] = []
    for piece in pieces:
        server.receive_data(piece)
        while (event := server.next_event()) is not None:
            events.append(event)
            if isinstance(event, Credentials):
                server.accept_credentials()
    return events


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@pytest.mark.parametrize("step", [*range(1, 12), 1000])
def test_a_transcript_gives_the_same_events_in_any_fragmentation(step: int) -> None:
    server = Socks5Server(require_credentials=True)

    events = drive(server, cut(GREETING + CREDENTIALS + CONNECT, step))

    assert events == [Credentials(b"user", b"secret"), EXAMPLE]
    assert server.data_to_send() == b"\x05\x02" + b"\x01\x00"


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_bytes_behind_the_request_are_kept(step: int) -> None:
    server = Socks5Server()
    assert drive(server, cut(ANONYMOUS + CONNECT, step)) == [EXAMPLE]
    server.receive_data(b"GET / ")
    assert server.next_event() is None
    server.receive_data(b"HTTP/1.1")

    server.reply(Reply.SUCCEEDED)

    assert server.trailing_data() == b"GET / HTTP/1.1"
    assert server.trailing_data() == b""
    assert server.data_to_send() == b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6)
    assert server.data_to_send() == b""


def test_a_pipelined_request_is_answered_in_order() -> None:
    server = Socks5Server()
    assert drive(server, [ANONYMOUS + CONNECT + b"early"]) == [EXAMPLE]
    assert server.data_to_send() == b"\x05\x00"
    server.reply(Reply.CONNECTION_REFUSED)
    assert server.data_to_send() == b"\x05\x05\x00\x01" + bytes(6)


def test_the_refusal_of_all_methods_is_two_bytes() -> None:
    server = Socks5Server(require_credentials=True)
    server.receive_data(ANONYMOUS)

    with pytest.raises(NoCredentialsError, match="username and password"):
        server.next_event()

    assert server.data_to_send() == b"\x05\xff"


def test_a_greeting_without_methods_is_refused_too() -> None:
    server = Socks5Server()
    server.receive_data(b"\x05\x00")
    with pytest.raises(ClientProtocolError, match="no authentication"):
        server.next_event()
    assert server.data_to_send() == b"\x05\xff"


def test_a_client_that_insists_on_credentials_may_present_them_where_none_are_needed() -> None:
    server = Socks5Server()
    assert drive(server, [b"\x05\x01\x02" + CREDENTIALS + CONNECT]) == [
        Credentials(b"user", b"secret"),
        EXAMPLE,
    ]


def test_no_authentication_is_preferred_where_none_is_needed() -> None:
    server = Socks5Server()
    drive(server, [GREETING])
    assert server.data_to_send() == b"\x05\x00"


def test_wrong_credentials_end_the_conversation() -> None:
    server = Socks5Server(require_credentials=True)
    server.receive_data(GREETING + CREDENTIALS + CONNECT)
    assert isinstance(server.next_event(), Credentials)

    server.reject_credentials()

    assert server.data_to_send() == b"\x05\x02" + b"\x01\x01"
    assert server.next_event() is None


def test_a_password_shows_nowhere() -> None:
    server = Socks5Server()
    server.receive_data(GREETING + CREDENTIALS)
    assert "secret" not in repr(Credentials(b"user", b"secret"))
    assert "secret" not in repr(server)


def test_udp_associate_carries_the_clients_own_address() -> None:
    request = b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"
    assert drive(Socks5Server(), [ANONYMOUS + request]) == [UdpAssociate("0.0.0.0", 0)]


@pytest.mark.parametrize(
    ("request_", "reply", "message"),
    [
        (b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", 7, "BIND is not supported"),
        (b"\x05\x09\x00\x01\x7f\x00\x00\x01\x00\x50", 7, "command 9 is not supported"),
        (b"\x05\x01\x00\x05\x00", 8, "unknown address type"),
        (b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", 1, "0 is not a port"),
        (b"\x05\x01\x00\x03\x00\x00\x50", 1, "the host is empty"),
        (b"\x05\x01\x00\x03\x02\xff\xfe\x00\x50", 1, "not a host name"),
        (b"\x05\x01\x00\x03\x03a b\x00\x50", 1, "not a host name"),
        (b"\x05\x01\x00\x03\x031.2\x00\x50", 1, "not an IPv4 address"),
    ],
)
def test_what_is_not_there_is_answered_with_its_code(request_: bytes, reply: int, message: str) -> None:
    server = Socks5Server()
    server.receive_data(ANONYMOUS + request_)

    with pytest.raises(ClientProtocolError, match=message):
        server.next_event()

    assert server.data_to_send() == b"\x05\x00" + bytes((5, reply, 0, 1)) + bytes(6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x04", "does not speak SOCKS5"),
        (ANONYMOUS + b"\x04\x01\x00", "not SOCKS5"),
        (b"\x05\x01\x02" + b"\x02\x00\x00", "RFC 1929"),
    ],
)
def test_another_version_is_no_socks5(data: bytes, message: str) -> None:
    server = Socks5Server()
    with pytest.raises(ClientProtocolError, match=message):
        drive(server, [data])
    assert server.next_event() is None


def test_a_client_that_hangs_up_is_an_error() -> None:
    server = Socks5Server()
    with pytest.raises(ClientProtocolError, match="hung up"):
        server.receive_data(b"")


def test_answers_out_of_turn_are_our_own_mistake() -> None:
    with pytest.raises(RuntimeError):
        Socks5Server().reply(Reply.SUCCEEDED)
    with pytest.raises(RuntimeError):
        Socks5Server().accept_credentials()


def test_a_name_that_is_an_address_becomes_one() -> None:
    request = b"\x05\x01\x00\x03\x09127.0.0.1\x00\x50"
    assert drive(Socks5Server(), [ANONYMOUS + request]) == [Connect(Target("127.0.0.1", 80))]


def test_a_name_is_taken_as_utf8_and_brought_into_ascii() -> None:
    name = "bücher.example".encode()
    request = b"\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x00\x50"
    assert drive(Socks5Server(), [ANONYMOUS + request]) == [Connect(Target("xn--bcher-kva.example", 80))]


@given(st.ip_addresses(), st.integers(1, 65535))
def test_an_address_arrives_as_it_was_sent(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    kind = b"\x01" if address.version == 4 else b"\x04"
    request = b"\x05\x01\x00" + kind + address.packed + port.to_bytes(2, "big")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None

    (event,) = drive(Socks5Server(), cut(ANONYMOUS + request, 7))

    assert event == Connect(Target(str(mapped or address), port))
    assert isinstance(event, Connect)
    assert event.target.address == (mapped or address)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_can_be_read_back(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    assert read_address(Cursor(encode_address(str(address), port))) == (address, port)


def test_a_name_can_be_read_back() -> None:
    assert read_address(Cursor(encode_address("example.com", 53))) == ("example.com", 53)


PIECES = st.sampled_from(
    [ANONYMOUS, GREETING, CREDENTIALS, CONNECT, b"\x05\xff" + bytes(255), b"\x05\x01\x00\x03\xff"]
)


@given(st.booleans(), st.lists(st.one_of(PIECES, st.binary(min_size=1, max_size=600)), max_size=6))
@example(require=True, pieces=[b"\x05\xff" + bytes(255)])
@example(require=False, pieces=[ANONYMOUS, b"\x05\x01\x00\x03\xff" + b"a" * 254])
def test_arbitrary_bytes_raise_nothing_but_the_documented_error(require: bool, pieces: list[bytes]) -> None:
    server = Socks5Server(require_credentials=require)
    with contextlib.suppress(ClientProtocolError):
        drive(server, pieces)
    assert len(server.data_to_send()) <= 2 + 2 + 22
