from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.protocol.ssh_fields import FieldError, Fields, clean_text, name_list, string, uint32


def test_fields_are_read_in_the_order_they_were_written() -> None:
    message = b"\x07" + uint32(2**32 - 1) + string(b"data") + name_list(["a", "b-c"]) + b"\1" + b"rest"
    fields = Fields(message)
    assert fields.byte() == 7
    assert fields.uint32() == 2**32 - 1
    assert fields.string() == b"data"
    assert fields.names() == ("a", "b-c")
    assert fields.boolean()
    assert fields.rest() == b"rest"
    assert fields.rest() == b"rest"


def test_an_empty_name_list_has_no_names() -> None:
    assert Fields(name_list([])).names() == ()


@given(st.binary(max_size=40))
def test_whatever_arrives_only_a_field_error_comes_out(data: bytes) -> None:
    fields = Fields(data)
    try:
        while True:
            fields.byte()
            fields.string()
            fields.names()
            fields.text()
    except FieldError:
        pass


def test_a_string_longer_than_its_message_is_an_error() -> None:
    with pytest.raises(FieldError, match="fit"):
        Fields(uint32(5) + b"abcd").string()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        (b"two\r\nlines\there", "two lines here"),
        (b"\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("right\u202eleft".encode(), "right left"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("Grüße".encode(), "Grüße"),
        (b"", ""),
    ],
)
def test_text_from_a_peer_cannot_move_a_terminal(raw: bytes, shown: str) -> None:
    assert clean_text(raw) == shown


def test_long_text_is_cut() -> None:
    assert clean_text(b"x" * 10_000, 10) == "xxxxxxxxx…"


@given(st.binary(max_size=200))
def test_clean_text_is_printable(raw: bytes) -> None:
    text = clean_text(raw)
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) <= 500
