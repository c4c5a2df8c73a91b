from __future__ import annotations

import itertools

import pytest
import trio

from awg_obfs.client import Tunnel, TunnelSettings, open_tunnel
from awg_obfs.errors import DialFault, TunnelDialError
from awg_obfs.protocol.keys import key_from_text
from awg_obfs.protocol.lint import findings
from session_proxy.lab.awg_server import open_awg_server
from session_proxy.lab.targets import PAGE, open_targets
from session_proxy.profile.model import AwgUpstream
from session_proxy.target import split_host_port


def settings_of(upstream: AwgUpstream) -> TunnelSettings:
    assert upstream.preshared_key is not None
    keys = [
        key_from_text(secret.reveal())
        for secret in (upstream.private_key, upstream.public_key, upstream.preshared_key)
    ]
    return TunnelSettings(
        server=(upstream.endpoint.host, upstream.endpoint.port),
        private_key=keys[0],
        public_key=keys[1],
        preshared_key=keys[2],
        keepalive_padding=upstream.keepalive_padding,
        parameters=upstream.awg,
    )


async def fetch(tunnel: Tunnel, host: str, port: int) -> bytes:
    stream = await tunnel.connect(host, port)
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        answer = b"".join([data async for data in stream])
    return answer.partition(b"\r\n\r\n")[2]


async def test_peers_reach_this_machine_at_the_same_time_by_address_and_by_name() -> None:
    with trio.fail_after(20):
        async with open_targets() as targets, open_awg_server("one", "other") as ways:
            assert list(ways) == ["one", "other"]
            _, port = split_host_port(targets.http)
            async with (
                open_tunnel(settings_of(ways["one"])) as one,
                open_tunnel(settings_of(ways["other"])) as other,
            ):
                for tunnel, host in itertools.product((one, other), ("127.0.0.1", "localhost")):
                    assert await fetch(tunnel, host, port) == PAGE


async def test_everything_else_is_denied() -> None:
    with trio.fail_after(20):
        async with open_awg_server("one") as ways, open_tunnel(settings_of(ways["one"])) as tunnel:
            with pytest.raises(TunnelDialError) as caught:
                await tunnel.connect("192.0.2.1", 80)

    assert caught.value.fault is DialFault.NOT_ALLOWED


async def test_each_lab_has_keys_and_parameters_of_its_own_and_the_lint_finds_nothing() -> None:
    async with open_awg_server("one") as first, open_awg_server("one") as second:
        one, other = first["one"], second["one"]

    assert one.awg != other.awg
    assert one.private_key.reveal() != other.private_key.reveal()
    assert one.endpoint != other.endpoint
    assert findings(one.awg, keepalive_padding=one.keepalive_padding) == ()
