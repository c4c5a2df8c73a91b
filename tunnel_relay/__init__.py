"""Reach machines through SSH and WebSockets, over any Trio stream.

A client's tunnel to an agent behind a relay begins with `open_tunnel_service`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunnel_relay.client.figures import Latency, TunnelMetrics
    from tunnel_relay.client.service import TunnelService, TunnelSettings, TunnelState, open_tunnel_service
    from tunnel_relay.dial_settings import DialSettings
    from tunnel_relay.policy.outbox import Priority
    from tunnel_relay.policy.selector import Endpoint
    from tunnel_relay.protocol.requests import Response, Status
    from tunnel_relay.stages import Outcome, Stage, Step

__all__ = [
    "DialSettings",
    "Endpoint",
    "Latency",
    "Outcome",
    "Priority",
    "Response",
    "Stage",
    "Status",
    "Step",
    "TunnelMetrics",
    "TunnelService",
    "TunnelSettings",
    "TunnelState",
    "open_tunnel_service",
]

# Imported on first use (PEP 562): who wants SSH only does not wait for the rest.
_LAZY = {
    "DialSettings": "tunnel_relay.dial_settings",
    "Endpoint": "tunnel_relay.policy.selector",
    "Latency": "tunnel_relay.client.figures",
    "Outcome": "tunnel_relay.stages",
    "Priority": "tunnel_relay.policy.outbox",
    "Response": "tunnel_relay.protocol.requests",
    "Stage": "tunnel_relay.stages",
    "Status": "tunnel_relay.protocol.requests",
    "Step": "tunnel_relay.stages",
    "TunnelMetrics": "tunnel_relay.client.figures",
    "TunnelService": "tunnel_relay.client.service",
    "TunnelSettings": "tunnel_relay.client.service",
    "TunnelState": "tunnel_relay.client.service",
    "open_tunnel_service": "tunnel_relay.client.service",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
