from __future__ import annotations

import json
import random
from pathlib import Path

import attrs

from awg_obfs.protocol.keys import key_to_text
from awg_obfs.protocol.presets import random_parameters
from session_proxy.lab.authorized_keys import parse_public_key
from session_proxy.lab.files import (
    Ways,
    environ_of,
    render_client,
    render_environ,
    render_profile,
    render_ready,
    write_key,
)
from session_proxy.lab.targets import Targets
from session_proxy.profile.awg_loading import load_awg_client
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import AwgUpstream, RelayEndpoint, RelayUpstream
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tests.support.awg_files import CLIENT_KEY, SERVER_PUBLIC
from tests.support.relay_files import claims_token
from tunnel_relay.ssh.keys import load_key_file

AWG = AwgUpstream(
    endpoint=Target.of("127.0.0.1", 4443),
    private_key=Secret("literal", "", key_to_text(CLIENT_KEY)),
    public_key=Secret("literal", "", SERVER_PUBLIC),
    preshared_key=Secret("literal", "", key_to_text(bytes(range(2, 34)))),
    keepalive_padding=True,
    awg=random_parameters(random.Random(1).randbytes),
)
RELAY = RelayUpstream(
    endpoints=(RelayEndpoint(url="ws://127.0.0.1:21005"),),
    token=Secret("literal", "", claims_token(sub="lab", exp=4_102_444_800, scope="client")),
    agent="lab",
)

WAYS = Ways(
    listen="127.0.0.1:21001",
    admin="127.0.0.1:21002",
    endpoint="http://127.0.0.1:21003",
    targets={
        "direct": Targets("127.0.0.1:1001", "127.0.0.1:1002"),
        "ssm-port": Targets("127.0.0.1:1003", "127.0.0.1:1004"),
    },
    instances=["i-0123456789abcdef0"],
    sshd="127.0.0.1:2222",
    user="lab",
    key=Path("/lab/id_ed25519"),
    awg=AWG,
    client_listen="127.0.0.1:21004",
    client=attrs.evolve(AWG, preshared_key=None),
    relay=RELAY,
)


def revealed(upstream: AwgUpstream) -> tuple[object, ...]:
    """Return what is to come out as it went in, keys in clear."""
    shared = upstream.preshared_key
    keys = (upstream.private_key.reveal(), upstream.public_key.reveal(), shared and shared.reveal())
    return (upstream.endpoint, upstream.keepalive_padding, upstream.awg, keys)


def test_ready_json_has_the_promised_shape() -> None:
    assert json.loads(render_ready(WAYS)) == {
        "listen": "127.0.0.1:21001",
        "admin": "127.0.0.1:21002",
        "targets": {
            "direct": {"http": "127.0.0.1:1001", "echo": "127.0.0.1:1002"},
            "ssm-port": {"http": "127.0.0.1:1003", "echo": "127.0.0.1:1004"},
        },
        "ssm_endpoint": "http://127.0.0.1:21003",
        "instances": ["i-0123456789abcdef0"],
    }


def test_the_environment_is_key_value_lines() -> None:
    lines = render_environ(environ_of(WAYS)).splitlines()

    assert "AWS_ENDPOINT_URL_SSM=http://127.0.0.1:21003" in lines
    assert all(line.count("=") == 1 and " " not in line for line in lines)


def test_the_profile_is_good_and_routes_by_port(tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    write_key(key)
    pairs = {
        name: Targets(f"127.0.0.1:{number}", f"127.0.0.1:{number + 1}")
        for number, name in zip(
            range(1001, 1013, 2), ("direct", "ssh", "ssm", "ssm-port", "awg", "relay"), strict=True
        )
    }
    (tmp_path / "profile.toml").write_text(
        render_profile(attrs.evolve(WAYS, key=key, targets=pairs), tmp_path)
    )
    (tmp_path / "profile.toml").chmod(0o600)
    warnings: list[str] = []
    profile = load_profile(tmp_path / "profile.toml", environ={}, warn=warnings.append)

    assert warnings == []
    assert list(profile.upstreams) == ["ssh", "ssm", "ssm-port", "awg", "relay"]
    awg = profile.upstreams["awg"]
    assert isinstance(awg, AwgUpstream)
    assert revealed(awg) == revealed(AWG)
    relay = profile.upstreams["relay"]
    assert isinstance(relay, RelayUpstream)
    assert (relay.endpoints, relay.agent) == (RELAY.endpoints, "lab")
    assert relay.token.reveal() == RELAY.token.reveal()
    assert [rule.upstream for rule in profile.routes] == [(name,) for name in pairs]
    ports = profile.routes[2].ports
    assert ports is not None
    assert [ports.contains(port) for port in (1004, 1005, 1006, 1007)] == [False, True, True, False]


def test_a_profile_may_leave_the_key_to_the_agent(tmp_path: Path) -> None:
    text = render_profile(attrs.evolve(WAYS, key=None), tmp_path)

    assert "\nkey =" not in text


async def test_a_key_can_be_loaded_and_its_public_line_is_returned(tmp_path: Path) -> None:
    line = write_key(tmp_path / "id")

    assert await load_key_file(tmp_path / "id")
    assert (tmp_path / "id.pub").read_text() == f"{line}\n"
    assert parse_public_key(line)


def test_the_client_is_good(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text(render_client(WAYS))
    (tmp_path / "client.toml").chmod(0o600)
    warnings: list[str] = []
    client = load_awg_client(tmp_path / "client.toml", environ={}, warn=warnings.append)

    assert warnings == []
    assert [str(address) for address in client.listen] == ["127.0.0.1:21004"]
    assert (client.auth.user, client.auth.password.reveal()) == ("lab", "lab")
    assert revealed(client.upstream()) == revealed(WAYS.client)
