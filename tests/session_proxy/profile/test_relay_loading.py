from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from session_proxy.errors import ProfileError
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_loading import load_relay_agent, load_relay_file, load_relay_server
from session_proxy.profile.relay_model import (
    RelayAgent,
    RelayAgentLimits,
    RelayLimits,
    RelayPool,
    RelayServer,
)
from session_proxy.profile.relay_presets import FREE, PRESETS, TIERS
from session_proxy.target import Target
from tests.support.awg_files import ServerText
from tests.support.relay_files import JWKS, AgentText, RelayText, write_file
from tests.support.relay_tokens import make_certificate

EVERYTHING = RelayText(
    top=(
        'listen = ["0.0.0.0:443", "[::]:443"]\nprofile = "production"\ntrusted_proxies = ["10.0.0.0/8", "::1"]\n'
        'proxy_protocol = true\nmetrics_token = "env:METRICS"\nstate = "var"\n'
    ),
    jwt='[jwt]\nalgorithms = "EdDSA"\nkeys = "file:jwks.json"\naudience = "us"\nrevoked = "file:revoked.txt"\n',
    more="""
[tls]
certificate = "file:cert.pem"
key = "key.pem"
[admin]
listen = "127.0.0.1:3002"
[store]
redis = "redis://127.0.0.1:6379/0"
prefix = "lab:"
[cluster]
listen = "0.0.0.0:3003"
address = "relay-1.internal:3003"
certificate = "cert.pem"
key = "key.pem"
ca = "file:cert.pem"
[audit]
file = "audit.jsonl"
[tiers.free]
streams = 7
[tiers.gold]
requests_per_minute = 5
modes = ["end-to-end", "relay-ssh"]
features = []
[users."alice@example.com".ssh]
user = "me"
key = "file:alice.key"
[pool]
warm = 2
[breaker]
failures = 3
[limits]
memory = 1048576
""",
)


def test_a_servers_file_with_everything(tmp_path: Path) -> None:
    make_certificate().write(tmp_path)
    (tmp_path / "revoked.txt").touch()
    (tmp_path / "alice.key").touch()
    file = write_file(tmp_path, EVERYTHING, "relay.toml")
    file.chmod(0o644)
    warnings: list[str] = []

    server = load_relay_server(file, environ={"METRICS": "sesame"}, warn=warnings.append)

    assert not warnings
    assert server.listen == (ListenAddress("0.0.0.0", 443), ListenAddress("::", 443))
    assert server.trusted_proxies == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    )
    assert server.proxy_protocol
    assert server.metrics_token is not None
    assert server.metrics_token.reveal() == "sesame"
    assert server.state == tmp_path / "var"
    assert server.tls is not None
    assert (server.tls.certificate, server.tls.key) == (tmp_path / "cert.pem", tmp_path / "key.pem")
    assert (server.jwt.algorithms, server.jwt.audience) == (("EdDSA",), "us")
    assert server.jwt.keys.reveal() == JWKS
    assert server.jwt.revoked == tmp_path / "revoked.txt"
    assert server.admin is not None
    assert server.store.redis is not None
    assert (server.store.redis.reveal(), server.store.prefix) == ("redis://127.0.0.1:6379/0", "lab:")
    assert server.cluster is not None
    assert (server.cluster.listen.port, str(server.cluster.address)) == (3003, "relay-1.internal:3003")
    assert server.cluster.ca == tmp_path / "cert.pem"
    assert server.audit is not None
    assert server.audit.file == tmp_path / "audit.jsonl"
    ssh = server.users["alice@example.com"].ssh
    assert (ssh.user, ssh.key) == ("me", str(tmp_path / "alice.key"))
    assert (server.pool.warm, server.breaker.failures, server.limits.memory) == (2, 3, 1048576)
    assert (server.file, server.name) == (file, "relay")


def test_a_server_needs_little(tmp_path: Path) -> None:
    server = load_relay_server(write_file(tmp_path, RelayText()), environ={})

    assert (server.limits, server.pool, server.tiers) == (RelayLimits(), RelayPool(), TIERS)
    assert server.jwt.audience == "session-proxy"
    assert (server.tls, server.admin, server.audit, server.store.redis) == (None, None, None, None)


def test_what_a_file_says_goes_over_its_preset(tmp_path: Path) -> None:
    text = RelayText(
        top='listen = "127.0.0.1:1"\nprofile = "development"\n',
        more="[limits]\ndrain = 7\n[tiers.free]\nstreams = 7\n[tiers.gold]\nstreams = 8\n",
    )
    development = PRESETS["development"]

    server = load_relay_server(write_file(tmp_path, text), environ={})

    assert (server.limits.drain, server.limits.handshake) == (7, development.limits.handshake)
    assert server.pool == development.pool
    assert (server.tiers["free"].streams, server.tiers["free"].modes) == (7, ("end-to-end", "relay-ssh"))
    assert server.tiers["premium"] == development.tiers["premium"]
    assert (server.tiers["gold"].streams, server.tiers["gold"].sessions) == (8, FREE.sessions)


def test_a_tier_of_the_preset_has_variables_too(tmp_path: Path) -> None:
    environ = {
        "SPROXY_TIERS_FREE_STREAMS": "5",
        "SPROXY_PROFILE": "high-throughput",
        "SPROXY_LIMITS_DRAIN": "2",
    }

    server = load_relay_server(write_file(tmp_path, RelayText()), environ=environ)

    assert (server.tiers["free"].streams, server.limits.drain) == (5, 2)
    assert server.limits.connections == PRESETS["high-throughput"].limits.connections


def test_a_preset_that_there_is_not_is_one_problem(tmp_path: Path) -> None:
    text = RelayText(top='listen = "127.0.0.1:1"\nprofile = "prodution"\n')

    with pytest.raises(ProfileError) as info:
        load_relay_server(write_file(tmp_path, text), environ={})

    (problem,) = info.value.problems
    assert problem.path == "profile"
    assert '(did you mean "production"?)' in problem.fix


def test_an_agents_file(tmp_path: Path) -> None:
    more = '[admin]\nlisten = "127.0.0.1:0"\n[limits]\nstreams = 3\n'
    file = write_file(tmp_path, AgentText(more=more), "agent.toml")
    warnings: list[str] = []

    agent = load_relay_agent(file, environ={}, warn=warnings.append)

    assert not warnings
    assert (agent.name, agent.control, agent.file) == ("nas", "agent", file)
    assert agent.services == {"ssh": Target("127.0.0.1", 22)}
    assert [endpoint.url for endpoint in agent.endpoints] == ["wss://relay.example"]
    assert agent.limits == RelayAgentLimits(streams=3)
    assert agent.admin is not None


def test_yaml_does_as_well(tmp_path: Path) -> None:
    text = 'listen: "127.0.0.1:1"\njwt:\n  keys: "file:jwks.json"\ntiers:\n  free:\n    modes: relay-ssh\n'

    server = load_relay_server(write_file(tmp_path, text, "relay.yaml"), environ={})

    assert server.tiers["free"].modes == ("relay-ssh",)


@pytest.mark.parametrize(
    ("text", "cls"), [(RelayText(), RelayServer), (AgentText(), RelayAgent), (ServerText(), type(None))]
)
def test_a_file_is_known_by_its_keys(text: object, cls: type, tmp_path: Path) -> None:
    assert isinstance(load_relay_file(write_file(tmp_path, text), environ={}), cls)


def test_no_secret_of_a_server_shows(tmp_path: Path) -> None:
    text = RelayText(
        top='listen = "127.0.0.1:1"\nmetrics_token = "hunter2-metrics"\n',
        jwt='[jwt]\nalgorithms = "HS256"\nkeys = "hunter2-hunter2-hunter2-hunter2-hunter2"\n',
        more=(
            '[store]\nredis = "redis://:hunter2@127.0.0.1"\n'
            '[cluster]\nlisten = "127.0.0.1:2"\ncertificate = "cert.pem"\nkey = "key.pem"\nca = "cert.pem"\n'
        ),
    )
    make_certificate().write(tmp_path)
    file = write_file(tmp_path, text)
    file.chmod(0o644)
    warnings: list[str] = []

    assert "hunter2" not in repr(load_relay_server(file, environ={}, warn=warnings.append))
    assert len([line for line in warnings if "is written out in a file that others can read" in line]) == 1
    assert not any("hunter2" in line for line in warnings)
