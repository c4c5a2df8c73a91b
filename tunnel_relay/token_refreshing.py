"""Gives the relay another token in time, and asks a person where there is none to be had."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from tunnel_relay.dial_events import AuthenticationNeeded, DialEvent, TokenRefreshed
from tunnel_relay.dial_settings import TokenSource
from tunnel_relay.errors import TokenUnavailableError
from tunnel_relay.link import FrameCarrier
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.tokens import expiry_of

# Seconds before a token expires at which another one is asked for, where it holds for long enough; else at half time.
REFRESH_AHEAD = 60.0

# Seconds between two attempts to get a token that holds for longer.
REFRESH_PAUSE = 15.0


@attrs.define(eq=False)
class TokenRefreshing:
    """See the module.

    Attributes:
      token: Where tokens come from.
      unix_time: The time of day.
      notify: Called with what happens.

    """

    token: TokenSource
    unix_time: Callable[[], float] = attrs.field(repr=False)
    notify: Callable[[DialEvent], None] = attrs.field(repr=False)
    _is_asked_for: bool = attrs.field(default=False, init=False)
    """Whether somebody has been told to log in again, since there was a token that works."""

    async def run(self, link: FrameCarrier, token: str) -> None:
        """Tell the relay behind *link*, which knows *token*, of newer ones, until there is one that never expires."""
        while True:
            expires = expiry_of(token)
            if expires is None:
                return
            left = expires - self.unix_time()
            await trio.sleep(max(left - REFRESH_AHEAD, left / 2, 0.0))
            token = await self._newer(token, expires)
            link.send(Frame(FrameType.REFRESH, payload=token.encode()))
            self.works()
            self.notify(TokenRefreshed(expiry_of(token)))

    def works(self) -> None:
        """Note that there is a token that works."""
        self._is_asked_for = False

    def ask_a_person(self, reason: str) -> None:
        """Tell that somebody has to log in again; once, until there is a token that works."""
        if not self._is_asked_for:
            self._is_asked_for = True
            self.notify(AuthenticationNeeded(reason))

    async def _newer(self, token: str, expires: float) -> str:
        """Return a token that holds for longer than *token*, whenever there is one."""
        while True:
            try:
                newer = (await self.token(anew=True)).strip()
            except TokenUnavailableError as exc:
                self.ask_a_person(str(exc))
            else:
                until = expiry_of(newer)
                if newer != token and (until is None or until > expires):
                    return newer
                self.ask_a_person("the token expires soon, and there is no newer one")
            await trio.sleep(REFRESH_PAUSE)
