from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.protocol.cursor import Cursor, NeedMoreError


def test_takes_pieces_in_order() -> None:
    cursor = Cursor(b"\x05\x01abc\x00rest")

    assert cursor.byte() == 5
    assert cursor.take(1) == b"\x01"
    assert cursor.take_until_null() == b"abc"
    assert cursor.at == 6
    assert cursor.take(4) == b"rest"


@given(st.binary(max_size=20), st.integers(0, 30))
def test_takes_what_is_there_or_asks_for_more(data: bytes, count: int) -> None:
    cursor = Cursor(data)
    if count <= len(data):
        assert cursor.take(count) == data[:count]
    else:
        with pytest.raises(NeedMoreError):
            cursor.take(count)
        assert cursor.at == 0


@given(st.binary(max_size=20))
def test_a_null_byte_that_has_not_come_is_waited_for(data: bytes) -> None:
    cursor = Cursor(data)
    if b"\0" in data:
        assert cursor.take_until_null() + b"\0" == data[: cursor.at]
    else:
        with pytest.raises(NeedMoreError):
            cursor.take_until_null()
