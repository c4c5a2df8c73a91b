from __future__ import annotations

import os
import ssl

import pytest
import trio
from trio.testing import memory_stream_pair

from tests.support.relay_tokens import Certificate, make_certificate
from tunnel_relay.category import Category, category_of
from tunnel_relay.errors import WebSocketError
from tunnel_relay.tls import client_tls, server_tls, shake_hands

CERTIFICATE = make_certificate()


def pair() -> tuple[trio.SSLStream[trio.abc.Stream], trio.SSLStream[trio.abc.Stream]]:
    near, far = memory_stream_pair()
    client = client_tls(near, CERTIFICATE.client_context(), "127.0.0.1")
    return client, server_tls(far, CERTIFICATE.server_context())


async def test_all_records_that_are_there_come_at_once() -> None:
    client, server = pair()
    data = os.urandom(1_000_000)
    reads: list[int] = []

    async def send() -> None:
        await server.send_all(data)
        await server.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = bytearray()
        while piece := await client.receive_some():
            reads.append(len(piece))
            received += piece
    assert received == data
    assert max(reads) > 64 * 1024


async def test_no_read_is_longer_than_it_may_be() -> None:
    client, server = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(100_000))
        received = 0
        while received < 100_000:
            piece = await server.receive_some(1000)
            assert 0 < len(piece) <= 1000
            received += len(piece)


async def test_an_end_comes_after_what_came_before() -> None:
    client, server = pair()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await client.send_all(b"last words")
            await client.aclose()

        nursery.start_soon(send)
        assert await server.receive_some() == b"last words"
        assert await server.receive_some() == b""


async def test_who_cannot_prove_itself_is_not_believed() -> None:
    near, far = memory_stream_pair()
    client = client_tls(near, None, "127.0.0.1")
    server = server_tls(far, CERTIFICATE.server_context())

    async def serve() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await server.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.do_handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        await trio.aclose_forcefully(near)


@pytest.mark.parametrize(
    ("certificate", "trusted", "said"),
    [
        (make_certificate(until=-0.5), True, "certificate has expired"),
        (
            make_certificate(),
            False,
            "self-signed certificate; where its authority is your own, name it with ca",
        ),
    ],
    ids=["expired", "unknown"],
)
async def test_why_a_certificate_is_not_believed_is_said(
    certificate: Certificate, trusted: bool, said: str
) -> None:
    near, far = memory_stream_pair()
    client = client_tls(near, certificate.client_context() if trusted else None, "127.0.0.1")
    server = server_tls(far, certificate.server_context())

    async def serve() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await server.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(WebSocketError) as caught:
            await shake_hands(client, "127.0.0.1")
        await trio.aclose_forcefully(near)
    assert str(caught.value) == f"127.0.0.1: its certificate is not believed: {said}"
    assert category_of(caught.value) is Category.CONFIGURATION


@pytest.mark.parametrize(
    ("answer", "said", "category"),
    [
        (b"", "127.0.0.1 hung up during the TLS handshake", Category.NETWORK),
        (
            b"SSH-2.0-OpenSSH",
            "127.0.0.1: what listens there does not speak TLS; correct the port, or what is in between",
            Category.PROTOCOL,
        ),
    ],
)
async def test_what_is_no_tls_is_told(answer: bytes, said: str, category: Category) -> None:
    near, far = memory_stream_pair()
    client = client_tls(near, None, "127.0.0.1")
    if answer:
        await far.send_all(answer)
    await far.send_eof()
    with pytest.raises(WebSocketError) as caught:
        await shake_hands(client, "127.0.0.1")
    assert str(caught.value) == said
    assert category_of(caught.value) is category
