"""How a relay has a stream refused on its way, though it may take no frame out of a session.

It writes into the OPEN, in the place of what the client asks for, why there is to be no stream; the agent answers that
as any other request that it will not have. No service has such a name: it begins with a byte that names do not have.
"""

from __future__ import annotations

from tunnel_relay.protocol.multiplexer import Reason

_MARK = 0
_HEAD = 2
_MAX_DETAIL = 200
_REASONS = {int(reason): reason for reason in Reason}


def write_refusal(reason: Reason, detail: str) -> bytes:
    """Return what to ask an agent for that is to refuse it, for that *reason*."""
    return bytes((_MARK, reason)) + detail.encode()[:_MAX_DETAIL]


def read_refusal(request: bytes) -> tuple[Reason, str] | None:
    """Return why a stream that asks for *request* is to be refused; None where the relay has nothing against it."""
    if len(request) < _HEAD or request[0] != _MARK:
        return None
    return _REASONS.get(request[1], Reason.UNSPECIFIED), request[_HEAD:].decode("utf8", "replace")
