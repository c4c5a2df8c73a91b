from __future__ import annotations

import socket

import pytest
import trio

from session_proxy.errors import ListenError
from session_proxy.inbound.sockets import bind_sockets, open_listeners, socket_name, start_listening
from session_proxy.profile.model import ListenAddress
from tests.support.sockets import LOOPBACK


@pytest.mark.parametrize("host", [LOOPBACK, "::1", "0.0.0.0"])
async def test_it_listens_on_either_version_of_ip(host: str) -> None:
    (listener,) = await open_listeners([ListenAddress(host, 0)])
    with listener:
        bound = socket_name(listener)
        assert bound.host == host
        assert bound.port > 0
        reached = LOOPBACK if host == "0.0.0.0" else host
        await (await trio.open_tcp_stream(reached, bound.port)).aclose()


async def test_both_versions_can_have_the_same_port() -> None:
    (four,) = await open_listeners([ListenAddress("0.0.0.0", 0)])
    with four:
        (six,) = await open_listeners([ListenAddress("::", socket_name(four).port)])
        with six:
            assert socket_name(six) == ListenAddress("::", socket_name(four).port)


async def test_a_name_stands_for_all_of_its_addresses() -> None:
    listeners = await open_listeners([ListenAddress("localhost", 0)])
    try:
        assert len({socket_name(listener).port for listener in listeners}) == 1
        assert LOOPBACK in {socket_name(listener).host for listener in listeners}
    finally:
        for listener in listeners:
            listener.close()


async def test_a_port_in_use_is_told_in_one_line() -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            ListenError, match=f"cannot listen on {LOOPBACK}:{port}: the port is in use"
        ) as caught:
            await open_listeners([ListenAddress(LOOPBACK, 0), ListenAddress(LOOPBACK, port)])
    assert "\n" not in str(caught.value)


async def test_an_address_can_be_taken_before_clients_are_accepted() -> None:
    (sock,) = await bind_sockets([ListenAddress(LOOPBACK, 0)])
    with sock:
        address = socket_name(sock)
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(address.host, address.port)
        start_listening([sock])
        await (await trio.open_tcp_stream(address.host, address.port)).aclose()
        with pytest.raises(ListenError, match="the port is in use"):
            await bind_sockets([address])


async def test_of_two_who_took_an_address_one_gets_it() -> None:
    (first,) = await bind_sockets([ListenAddress(LOOPBACK, 0)])
    with first:
        (second,) = await bind_sockets([socket_name(first)])
        with second:
            start_listening([first])
            with pytest.raises(ListenError, match="the port is in use"):
                start_listening([second])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (ListenAddress("192.0.2.7", 0), "this machine has no such address"),
        (ListenAddress("nowhere.invalid", 0), "the host has no address"),
    ],
)
async def test_what_cannot_be_listened_on_is_told(address: ListenAddress, message: str) -> None:
    with pytest.raises(ListenError, match=message):
        await open_listeners([address])


@pytest.mark.parametrize(("number", "message"), [(13, "need privileges"), (5, "Input/output error")])
async def test_other_reasons_are_told_too(number: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_sock: socket.socket, _name: object) -> None:
        raise OSError(number, "Input/output error")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ListenError, match=message):
        await open_listeners([ListenAddress(LOOPBACK, 80)])
