from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import DialFault, WireError
from awg_obfs.protocol.tunnel_wire import (
    CODES,
    FAULTS,
    MAX_DETAIL,
    MAX_NAME,
    MAX_REPLY,
    MAX_REQUEST,
    AssociateRequest,
    OpenRequest,
    Reply,
    ReplyCode,
    Request,
    decode_address,
    decode_reply,
    decode_request,
    encode_address,
)

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=MAX_NAME)
HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), NAMES.filter(lambda n: "%" not in n)
)
PORTS = st.integers(0, 65535)
REQUESTS = st.one_of(st.builds(OpenRequest, HOSTS, PORTS), st.builds(AssociateRequest))


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        (OpenRequest("192.0.2.1", 80), b"\1\1\1\xc0\x00\x02\x01\x00\x50"),
        (
            OpenRequest("2001:db8::1", 443),
            b"\1\1\4" + bytes.fromhex("20010db8000000000000000000000001") + b"\x01\xbb",
        ),
        (OpenRequest("web.internal", 8080), b"\1\1\3\x0cweb.internal\x1f\x90"),
        (AssociateRequest(), b"\1\3"),
    ],
)
def test_requests_look_as_docs_protocol_says(request_: Request, data: bytes) -> None:
    """Version, command, address type, address, port."""
    assert request_.encode() == data
    assert decode_request(data + b"early") == (request_, len(data))


def same(request: Request) -> Request:
    """Return *request* with its address in canonical form."""
    match request:
        case OpenRequest(host, port):
            try:
                return OpenRequest(str(ipaddress.ip_address(host)), port)
            except ValueError:
                return request
        case AssociateRequest():
            return request


@given(REQUESTS, st.binary(max_size=40))
def test_a_request_is_read_at_any_fragmentation(request: Request, early: bytes) -> None:
    """As long as a byte is missing there is no request; then there is, and what follows does not matter."""
    data = request.encode()

    assert len(data) <= MAX_REQUEST
    for end in range(len(data)):
        assert decode_request(data[:end]) is None
    for end in range(len(data), len(data) + len(early) + 1):
        assert decode_request((data + early)[:end]) == (same(request), len(data))


@given(st.integers(0, 255), st.text(max_size=300))
def test_a_reply_is_read_at_any_fragmentation(code: int, detail: str) -> None:
    data = Reply(code, detail).encode()

    assert len(data) <= MAX_REPLY
    for end in range(len(data)):
        assert decode_reply(data[:end]) is None
    decoded = decode_reply(data + b"and more")
    assert decoded is not None
    assert decoded[0].code == code
    assert decoded[1] == len(data)


@given(st.binary(max_size=300))
def test_whatever_a_client_sends_is_a_request_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        decoded = decode_request(data)
        assert decoded is None or decoded[1] <= len(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\2", "version 2"),
        (b"\1\2", "no command 2"),
        (b"\1\1\2", "no address type 2"),
        (b"\1\1\3\0\0\x50", "a name has"),
        (b"\1\1\3\5a b.c\0\x50", "a name has"),
        (b"\1\1\3\4a\0.c\0\x50", "a name has"),
    ],
)
def test_what_this_version_does_not_speak_is_refused_as_soon_as_it_is_seen(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        decode_request(data)


@pytest.mark.parametrize(
    "host",
    ["", "a b", "näme", "a\0b", "x" * (MAX_NAME + 1), "fe80::1%eth0", "line\nbreak"],
)
def test_there_is_no_writing_down_what_is_no_host(host: str) -> None:
    with pytest.raises(ValueError, match=r"no name|one link"):
        OpenRequest(host, 80).encode()


@pytest.mark.parametrize("port", [-1, 65536])
def test_there_is_no_writing_down_what_is_no_port(port: int) -> None:
    with pytest.raises(ValueError, match="not a port"):
        encode_address("192.0.2.1", port)


def test_an_address_is_read_where_it_stands() -> None:
    data = b"before" + encode_address("192.0.2.7", 53) + b"after"

    assert decode_address(data, 6) == ("192.0.2.7", 53, 13)
    assert decode_address(b"", 0) is None
    assert decode_address(b"\3", 0) is None


def test_every_fault_has_a_code_of_its_own_and_every_failure_a_fault() -> None:
    assert set(CODES) == set(DialFault)
    assert len(set(CODES.values())) == len(DialFault)
    assert all(FAULTS[code] is fault for fault, code in CODES.items())
    # What this server never answers is no fault of the destination.
    assert {code for code in ReplyCode if code not in FAULTS} == {
        ReplyCode.SUCCEEDED,
        ReplyCode.UNKNOWN_COMMAND,
        ReplyCode.UNKNOWN_ADDRESS_TYPE,
    }


def test_codes_are_those_of_socks5() -> None:
    assert [ReplyCode(number).name for number in range(9)] == [
        "SUCCEEDED",
        "GENERAL_FAILURE",
        "NOT_ALLOWED",
        "UNREACHABLE",
        "NO_SUCH_HOST",
        "REFUSED",
        "TIMED_OUT",
        "UNKNOWN_COMMAND",
        "UNKNOWN_ADDRESS_TYPE",
    ]


def test_a_long_detail_is_cut_and_a_dirty_one_cleaned() -> None:
    """A server's words end up in a client's log."""
    cut = decode_reply(Reply(1, "x" * 1000).encode())
    dirty = decode_reply(Reply(1, "a\x1b[2Jb\nc").encode())

    assert cut is not None
    assert cut[0].detail == "x" * MAX_DETAIL
    assert dirty is not None
    assert dirty[0].detail == "a?[2Jb?c"
