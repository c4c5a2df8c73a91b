"""What of an ssh-agent others may use to whom it is forwarded: they may see its keys and have them sign, and no more.

Who controls the machine that an agent is forwarded to could otherwise add keys, remove them, or lock the agent.
"""

from __future__ import annotations

import attrs

from tunnel_relay.protocol.ssh_agent_messages import (
    asks_for_identities,
    failure,
    identities_answer,
    parse_identities,
    parse_sign_request,
    parse_signature,
)
from tunnel_relay.protocol.ssh_fields import FieldError


@attrs.frozen
class AgentGate:
    """Lets through what may be asked, and of the answers what belongs to it.

    Attributes:
      keys: The public keys that may be seen and used; None for all that the agent has.

    """

    keys: frozenset[bytes] | None = attrs.field(default=None, repr=False)

    def admits(self, request: bytes) -> bool:
        """Return whether the agent may be asked *request*."""
        if asks_for_identities(request):
            return True
        try:
            key = parse_sign_request(request)
        except FieldError:
            return False
        return key is not None and self._may_use(key)

    def answer(self, request: bytes, answer: bytes) -> bytes:
        """Return what to say to a *request* that was let through, to which the agent says *answer*."""
        try:
            if asks_for_identities(request):
                return identities_answer(key for key in parse_identities(answer) if self._may_use(key.blob))
            parse_signature(answer)
        except FieldError:
            return failure()
        return answer

    def _may_use(self, key: bytes) -> bool:
        return self.keys is None or key in self.keys
