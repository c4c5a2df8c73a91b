"""How clients and agents get to their relay: servers, certificates, proxies and tokens, as their files say."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import trio

from session_proxy.errors import (
    DialError,
    DialTimeoutError,
    ExitCode,
    NotAllowedError,
    RefusedError,
    TransportDownError,
    UnreachableError,
)
from session_proxy.outbound.links import LinkFailedError
from session_proxy.profile.model import RelayEndpoint
from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import InvalidValueError, reread
from session_proxy.ssm.http_proxy import proxy_for
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.errors import TokenUnavailableError
from tunnel_relay.link import LinkSettings
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.unverified import is_one_word

# Why a stream is refused.
ERRORS: Mapping[Reason, type[DialError]] = {
    Reason.NOT_ALLOWED: NotAllowedError,
    Reason.NO_SUCH_SERVICE: TransportDownError,
    Reason.UNREACHABLE: UnreachableError,
    Reason.REFUSED: RefusedError,
    Reason.TIMED_OUT: DialTimeoutError,
    Reason.LIMIT: TransportDownError,
}


@attrs.define(eq=False)
class SecretTokens:
    """Tokens from a file's ``token``, which is read again when another one is needed."""

    _secret: Secret = attrs.field(repr=False)
    _token: str = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._token = self._secret.reveal()

    def change(self, secret: Secret) -> None:
        """Give tokens of *secret* from now on."""
        self._secret, self._token = secret, secret.reveal()

    async def __call__(self, *, anew: bool) -> str:
        """See `tunnel_relay.dial_settings.TokenSource`."""
        if anew:
            try:
                # A command may ask a person; whoever has not the time does not wait for it.
                self._token = await trio.to_thread.run_sync(reread, self._secret, abandon_on_cancel=True)
            except InvalidValueError as exc:
                raise TokenUnavailableError(f"token: {exc}; {exc.fix}") from exc
        else:
            await trio.lowlevel.checkpoint()
        token = self._token.strip()
        if not is_one_word(token):
            raise TokenUnavailableError(
                "token: has spaces or several lines; there has to be nothing but the token"
            )
        return token


async def dial_settings(
    endpoints: Sequence[RelayEndpoint],
    ca: Path | None,
    environ: Mapping[str, str],
    *,
    query: Sequence[tuple[str, str]] = (),
    link: LinkSettings | None = None,
) -> DialSettings:
    """Return how to get to the relay.

    Raises:
      LinkFailedError: the file of certificates cannot be used.

    """
    return DialSettings(
        endpoints=[Endpoint(url=each.url, priority=each.priority, weight=each.weight) for each in endpoints],
        query=query,
        ssl_context=None if ca is None else await _trusting(ca),
        proxy=lambda url: proxy_for(url, environ),
        link=link or LinkSettings(),
    )


async def _trusting(ca: Path) -> ssl.SSLContext:
    def load() -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.load_verify_locations(cafile=ca)
        return context

    try:
        return await trio.to_thread.run_sync(load)
    except OSError as exc:
        # ssl.SSLError is an OSError too.
        raise LinkFailedError(
            f"ca: {ca} cannot be used: {exc.strerror or exc}",
            needs_person=True,
            exit_code=ExitCode.CONFIGURATION,
        ) from exc
