"""What an agent's way to its relay has gone through, as log lines."""

from __future__ import annotations

from session_proxy.observability.logging import Log
from tunnel_relay.dial_events import (
    AuthenticationNeeded,
    DialEvent,
    DialFailed,
    Linked,
    LinkLost,
    TokenRefreshed,
)


def log_dialing(log: Log, event: DialEvent) -> None:
    """Write the line that *event* deserves."""
    match event:
        case Linked(url=url, setup=setup):
            log.info("linked", relay=url, setup=round(setup, 3))
        case LinkLost(url=url, reason=reason, category=category):
            log.warning("link lost", relay=url, reason=reason, category=category.value)
        case DialFailed(url=url, reason=reason, category=category, rest=rest):
            log.warning(
                "relay not reached",
                relay=url,
                reason=reason,
                category=category.value,
                retry_in=round(rest, 1),
            )
        case TokenRefreshed():
            log.info("token refreshed")
        case AuthenticationNeeded(reason=reason):
            log.warning("token needed", message=f"a new token is needed: {reason}")
