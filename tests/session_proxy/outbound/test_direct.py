from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import trio

from session_proxy.errors import RefusedError, ResolutionError, TransportDownError
from session_proxy.outbound import direct
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.socket_stream import PlainSocketStream
from session_proxy.outbound.transport import HealthState, Transport
from session_proxy.target import Target
from tests.support.sockets import LOOPBACK, closed_port, echo, open_server, read_exactly
from tests.support.tunnels import open_udp_echo


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_connects_to_addresses_of_both_versions(host: str) -> None:
    transport: Transport = DirectTransport()
    async with open_server(echo, host) as port, await transport.connect_tcp(Target.of(host, port)) as stream:
        assert isinstance(stream, PlainSocketStream)
        await stream.send_all(b"ping")
        assert await read_exactly(stream, 4) == b"ping"


async def test_it_looks_names_up() -> None:
    async with (
        open_server(echo) as port,
        await DirectTransport().connect_tcp(Target("localhost", port)) as stream,
    ):
        assert stream.socket.getpeername()[1] == port


async def test_a_closed_port_is_refused() -> None:
    with pytest.raises(RefusedError):
        await DirectTransport().connect_tcp(Target(LOOPBACK, closed_port()))


def fail_with(exc: OSError | UnicodeError) -> Callable[..., list[object]]:
    def getaddrinfo(*_arguments: object, **_options: object) -> list[object]:
        raise exc

    return getaddrinfo


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), ResolutionError, "the name has no address here"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), ResolutionError, "resolver does not answer"),
        (UnicodeError("label too long"), ResolutionError, "none that DNS could know"),
        (OSError(24, "too many files"), TransportDownError, "resolver does not work"),
    ],
)
async def test_what_the_resolver_says_is_told(
    monkeypatch: pytest.MonkeyPatch, failure: OSError | UnicodeError, kind: type[Exception], message: str
) -> None:
    monkeypatch.setattr(direct.socket, "getaddrinfo", fail_with(failure))
    with pytest.raises(kind, match=message):
        await DirectTransport().connect_tcp(Target("name.example", 80))


async def test_addresses_of_a_name_are_told_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_arguments: object, **_options: object) -> list[object]:
        return [
            (socket.AF_INET6, 1, 6, "", ("2001:db8::1", 80, 0, 3)),
            (socket.AF_INET, 1, 6, "", ("192.0.2.7", 80)),
            (socket.AF_INET, 1, 6, "", ("192.0.2.7", 80)),
        ]

    monkeypatch.setattr(direct.socket, "getaddrinfo", getaddrinfo)
    found = await DirectTransport().look_up(Target("name.example", 80), socket.SOCK_STREAM)
    assert [address.name for address in found] == [("2001:db8::1", 80, 0, 3), ("192.0.2.7", 80)]


async def test_an_address_in_no_known_form_is_a_broken_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_arguments: object, **_options: object) -> list[object]:
        return [(socket.AF_INET6, 1, 6, "", (10, b"raw"))]

    monkeypatch.setattr(direct.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(TransportDownError):
        await DirectTransport().connect_tcp(Target("name.example", 80))


async def test_it_is_ready_always() -> None:
    transport = DirectTransport()
    await transport.wait_usable()
    assert transport.health().state is HealthState.READY
    with trio.move_on_after(0) as waiting:
        await transport.wait_changed()
    assert waiting.cancelled_caught


async def test_closing_it_would_end_nothing() -> None:
    assert DirectTransport().streams() == 0


async def test_a_slow_resolver_does_not_outlive_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    release = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def getaddrinfo(*_arguments: object, **_options: object) -> list[object]:
        trio.from_thread.run(release.wait, trio_token=token)
        return []

    monkeypatch.setattr(direct.socket, "getaddrinfo", getaddrinfo)
    with trio.move_on_after(0.01) as scope:
        await DirectTransport().connect_tcp(Target("name.example", 80))
    release.set()
    assert scope.cancelled_caught


async def test_it_carries_datagrams() -> None:
    datagrams = await DirectTransport().open_udp()
    async with open_udp_echo() as (host, port):
        await datagrams.send(Target.of(host, port), b"ping")
        with trio.fail_after(5):
            assert await datagrams.receive() == (Target.of(host, port), b"ping")
    await datagrams.aclose()
