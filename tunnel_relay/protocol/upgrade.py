"""How links to a relay are asked for: the upgrade request (RFC 6455, section 4.1), and how they are ended."""

from __future__ import annotations

# The version of all that travels in a link.
SUBPROTOCOL = "sproxy-relay.v1"

# Where a relay server is asked for a link, and for its health.
CONNECT_PATH = "/api/tunnel/connect"
HEALTH_PATH = "/api/tunnel/health"

# Close codes of our own (RFC 6455, section 7.4.2): they say what an HTTP status would.
UNAUTHORIZED = 4401
