"""How to get to a relay: its servers, proxies, certificates, and when to go from one server to another."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import attrs

from tunnel_relay.link import LinkSettings
from tunnel_relay.policy.selector import Endpoint, SelectorSettings
from tunnel_relay.protocol.upgrade import CONNECT_PATH


def no_proxy(_url: str) -> None:
    """Be a `DialSettings.proxy` for where there is none."""


class TokenSource(Protocol):
    """Where tokens come from."""

    async def __call__(self, *, anew: bool) -> str:
        """Return the token; with *anew*, look for another one than was returned last.

        Raises:
          TokenUnavailableError: there is none.

        """
        ...


@attrs.frozen(kw_only=True)
class DialSettings:
    """How to get to the relay.

    Attributes:
      endpoints: Its servers.
      query: What the upgrade request says of us: an agent's name and instance; nothing of a client.
      ssl_context: How servers prove themselves; None for the system's way.
      proxy: Returns the URL of the HTTP proxy for that of a server; None where there is none.
      link: How a link notices that it is dead.
      selector: When to fail over, and back.
      connect: Seconds that a server may take until the link is up.

    """

    endpoints: Sequence[Endpoint]
    query: Sequence[tuple[str, str]] = ()
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    proxy: Callable[[str], str | None] = attrs.field(default=no_proxy, repr=False)
    link: LinkSettings = attrs.field(factory=LinkSettings)
    selector: SelectorSettings = attrs.field(factory=SelectorSettings)
    connect: float = 15.0


def connect_url(url: str, query: Sequence[tuple[str, str]]) -> str:
    """Return where the server at *url* is asked for a link, by somebody of whom *query* tells."""
    parts = urlsplit(url)
    path = parts.path if parts.path not in ("", "/") else CONNECT_PATH
    return parts._replace(path=path, query=urlencode(query)).geturl()
