"""Why no session begins with an agent, in words for people."""

from __future__ import annotations

from collections.abc import Collection

# Names of agents in one message.
MOST_NAMED = 5


def why_leaving(name: str) -> str:
    """Return why no session begins with an agent of that name, though there is one."""
    return f"the agent {name!r} is being shut down"


def why_none(user: str, name: str, others: Collection[str]) -> str:
    """Return why there is no agent called *name*; *others* are the *user*'s that are connected.

    Without a *name*, it is why none of them is meant.
    """
    names = ", ".join(map(repr, sorted(others)[:MOST_NAMED]))
    if name:
        rest = f"; there is {names}" if names else f", nor any other of {user!r}"
        return f"no agent {name!r} is connected{rest}"
    return f"say which agent: there is {names}" if names else f"no agent of {user!r} is connected"
