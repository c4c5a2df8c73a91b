"""What happens on the way to a relay, as values."""

from __future__ import annotations

import attrs

from tunnel_relay.category import Category


@attrs.frozen
class Linked:
    """There is a link to the server at *url*, after so many seconds."""

    url: str
    setup: float


@attrs.frozen
class LinkLost:
    """The link that was in use is lost."""

    url: str
    reason: str
    category: Category


@attrs.frozen
class DialFailed:
    """The server at *url* could not be linked to; it is asked again after *rest* seconds, others before that."""

    url: str
    reason: str
    category: Category
    rest: float


@attrs.frozen
class TokenRefreshed:
    """The relay was given a newer token."""

    expires: float | None


@attrs.frozen
class AuthenticationNeeded:
    """A new token is needed and could not be had: somebody has to log in again. Told once until there is one."""

    reason: str


DialEvent = Linked | LinkLost | DialFailed | TokenRefreshed | AuthenticationNeeded
