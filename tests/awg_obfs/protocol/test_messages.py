from __future__ import annotations

from awg_obfs.protocol.messages import CookieReply, Initiation, Response
from awg_obfs.protocol.sizes import COOKIE_REPLY_LENGTH, INITIATION_LENGTH, RESPONSE_LENGTH


def test_an_initiation_has_its_fields_where_wireguard_has_them() -> None:
    initiation = Initiation(0x04030201, b"e" * 32, b"s" * 48, b"t" * 28)

    message = initiation.encode(7)

    assert len(message) == INITIATION_LENGTH
    assert message == b"\7\0\0\0" + b"\1\2\3\4" + b"e" * 32 + b"s" * 48 + b"t" * 28 + bytes(32)
    assert Initiation.decode(bytes(message)) == initiation


def test_a_response_has_its_fields_where_wireguard_has_them() -> None:
    response = Response(0x04030201, 0x08070605, b"e" * 32, b"n" * 16)

    message = response.encode(7)

    assert len(message) == RESPONSE_LENGTH
    assert message == b"\7\0\0\0" + bytes(range(1, 9)) + b"e" * 32 + b"n" * 16 + bytes(32)
    assert Response.decode(bytes(message)) == response


def test_a_cookie_reply_has_its_fields_where_wireguard_has_them() -> None:
    reply = CookieReply(0x04030201, b"n" * 24, b"c" * 32)

    message = reply.encode(7)

    assert len(message) == COOKIE_REPLY_LENGTH
    assert message == b"\7\0\0\0" + b"\1\2\3\4" + b"n" * 24 + b"c" * 32
    assert CookieReply.decode(message) == reply


def test_what_is_sealed_is_not_shown() -> None:
    assert "ssss" not in repr(Initiation(1, b"e" * 32, b"s" * 48, b"t" * 28))
