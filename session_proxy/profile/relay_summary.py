"""What a relay's server and agent are configured to be, in a few words for people: never a key, never a token."""

from __future__ import annotations

from collections.abc import Sequence

from session_proxy.profile.model import RelayEndpoint
from session_proxy.profile.relay_model import RelayAgent, RelayServer


def server_summary(server: RelayServer) -> dict[str, object]:
    """Return the fields of the line that tells how a server is configured."""
    return {
        "listen": ", ".join(map(str, server.listen)),
        "tls": _yes(server.tls is not None),
        "profile": server.profile,
        "workers": server.workers,
        "tokens": ", ".join(server.jwt.algorithms),
        "audience": server.jwt.audience,
        "trusted_proxies": ", ".join(map(str, server.trusted_proxies)) or "none",
        "proxy_protocol": _yes(server.proxy_protocol),
        "store": "memory" if server.store.redis is None else "redis",
        "audit": "none" if server.audit is None else str(server.audit.file),
        "tiers": ", ".join(server.tiers),
        "users": ", ".join(server.users) or "none",
    }


def agent_summary(agent: RelayAgent) -> dict[str, object]:
    """Return the fields of the line that tells how an agent is configured."""
    return {
        "agent": agent.name,
        "endpoints": endpoints_summary(agent.endpoints),
        "services": ", ".join(f"{name}={target}" for name, target in agent.services.items()),
    }


def endpoints_summary(endpoints: Sequence[RelayEndpoint]) -> str:
    """Return the relay servers, those that are used first in front."""
    return ", ".join(endpoint.url for endpoint in sorted(endpoints, key=lambda each: each.priority))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
