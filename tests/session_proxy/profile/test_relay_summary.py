from __future__ import annotations

from pathlib import Path

import attrs

from session_proxy.profile.model import RelayEndpoint
from session_proxy.profile.relay_loading import load_relay_agent, load_relay_server
from session_proxy.profile.relay_model import RelayAudit, RelayStore
from session_proxy.profile.relay_summary import agent_summary, endpoints_summary, server_summary
from session_proxy.profile.secret import Secret
from tests.support.relay_files import TOKEN, AgentText, RelayText, write_file


def test_a_server_in_a_few_words(tmp_path: Path) -> None:
    assert server_summary(load_relay_server(write_file(tmp_path, RelayText()), environ={})) == {
        "listen": "127.0.0.1:3001",
        "tls": "no",
        "profile": "production",
        "workers": 1,
        "tokens": "EdDSA",
        "audience": "session-proxy",
        "trusted_proxies": "none",
        "proxy_protocol": "no",
        "store": "memory",
        "audit": "none",
        "tiers": "free, premium, enterprise",
        "users": "none",
    }


def test_where_a_store_is_may_hold_a_password(tmp_path: Path) -> None:
    server = attrs.evolve(
        load_relay_server(write_file(tmp_path, RelayText()), environ={}),
        store=RelayStore(redis=Secret("literal", "", "redis://:hunter2@a")),
        audit=RelayAudit(file=Path("/a.jsonl")),
    )

    summary = server_summary(server)
    assert (summary["store"], summary["audit"]) == ("redis", "/a.jsonl")
    assert "hunter2" not in str(summary)


def test_an_agent_in_a_few_words(tmp_path: Path) -> None:
    summary = agent_summary(load_relay_agent(write_file(tmp_path, AgentText()), environ={}))

    assert summary == {"agent": "nas", "endpoints": "wss://relay.example", "services": "ssh=127.0.0.1:22"}
    assert TOKEN not in str(summary)


def test_the_endpoints_that_are_used_first_come_first() -> None:
    endpoints = [RelayEndpoint(url="wss://b", priority=2), RelayEndpoint(url="wss://a", priority=1)]

    assert endpoints_summary(endpoints) == "wss://a, wss://b"
