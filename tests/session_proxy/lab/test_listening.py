from __future__ import annotations

import random
import socket

import pytest
import trio

from session_proxy.lab import listening
from session_proxy.lab.listening import RESERVED_PORTS, free_port, has_ipv6, open_sockets


async def test_one_port_serves_every_loopback_address_by_tcp_and_udp() -> None:
    sockets = await open_sockets(udp=True)
    names = [listener.socket.getsockname() for listener in sockets.tcp]
    names += [sock.getsockname() for sock in sockets.udp]

    assert {name[1] for name in names} == {sockets.port}
    assert sockets.address == f"127.0.0.1:{sockets.port}"
    assert len(names) == (4 if has_ipv6() else 2)
    for listener in sockets.tcp:
        await listener.aclose()
    for sock in sockets.udp:
        sock.close()


async def test_without_ipv6_there_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "has_ipv6", lambda: False)
    sockets = await open_sockets()

    assert [listener.socket.getsockname() for listener in sockets.tcp] == [("127.0.0.1", sockets.port)]
    await sockets.tcp[0].aclose()


async def test_a_free_port_can_be_taken_and_a_taken_one_is_not_offered() -> None:
    port = free_port(random.Random(7))
    assert port in RESERVED_PORTS
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        # The same generator would choose the same port again.
        assert free_port(random.Random(7)) != port
    (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
    await listener.aclose()
