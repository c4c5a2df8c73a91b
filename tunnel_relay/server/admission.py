"""Who asks to be linked to the relay, and whether to let them in: the head of an upgrade request, judged."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

import attrs

from tunnel_relay.protocol.greetings import MAX_NAME
from tunnel_relay.protocol.tokens import Claims, Scope

# RFC 6750, section 2.1.
_BEARER = "bearer "


class AdmissionError(Exception):
    """Somebody is not let in: the HTTP *status* and one line that says why."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(detail)


@attrs.frozen
class Asking:
    """What somebody asks for.

    Attributes:
      token: The bearer token.
      agent: The agent's name; None for a client.
      instance: Which of the agents of that name.

    """

    token: str = attrs.field(repr=False)
    agent: str | None = None
    instance: str = ""


def read_asking(query: str, headers: Mapping[str, str]) -> Asking:
    """Return what the *query* and the *headers* (names in lower case) of an upgrade request ask for.

    Raises:
      AdmissionError: there is no token, or the query makes no sense.

    """
    authorization = headers.get("authorization", "")
    if not authorization.lower().startswith(_BEARER):
        raise AdmissionError(401, "say who you are: Authorization: Bearer TOKEN")
    token = authorization[len(_BEARER) :].strip()
    values = parse_qs(query, keep_blank_values=True)
    if unknown := sorted(values.keys() - {"agent", "instance"}):
        raise AdmissionError(400, f"the query has {unknown[0]!r}; there is agent=NAME&instance=ID for agents")
    agent, instance = _single(values, "agent"), _single(values, "instance")
    if (agent is None) != (instance is None):
        raise AdmissionError(400, "an agent says both agent=NAME and instance=ID")
    return Asking(token, agent, instance or "")


def check_scope(asking: Asking, claims: Claims) -> None:
    """See to it that a token is good for what is asked for.

    Raises:
      AdmissionError: it is not.

    """
    needed = Scope.CLIENT if asking.agent is None else Scope.AGENT
    if needed not in claims.scopes:
        raise AdmissionError(403, f"the token's scope does not hold {needed.value!r}")


def _single(values: Mapping[str, list[str]], key: str) -> str | None:
    found = values.get(key)
    if found is None:
        return None
    if len(found) > 1 or not 0 < len(found[0]) <= MAX_NAME or not found[0].isprintable():
        raise AdmissionError(400, f"the query's {key!r} is no name of up to {MAX_NAME} characters")
    return found[0]
