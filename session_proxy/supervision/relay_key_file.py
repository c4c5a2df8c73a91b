"""The keys of a relay server's tokens, where they are in a file: that is read again when it changes."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from session_proxy.profile.relay_keys import read_jwt_keys
from session_proxy.profile.relay_model import RelayJwt
from session_proxy.profile.secret_sources import InvalidValueError, reread
from session_proxy.supervision.relay_files import LOOK
from tunnel_relay.protocol.tokens import TokenKeyError, Verifier


@attrs.frozen
class _Read:
    """What a file said, and what verifies tokens by it; or why nothing does."""

    text: str = attrs.field(repr=False)
    verifier: Verifier | None = attrs.field(default=None, eq=False)
    problem: str = ""


@attrs.define(eq=False)
class KeyFile:
    """See the module.

    Attributes:
      trust: Called with what verifies tokens when that is another one.
      fail: Called once with what goes wrong; what was read before holds on then.

    """

    trust: Callable[[Verifier], None]
    fail: Callable[[str], None]
    _jwt: RelayJwt
    _verifier: Verifier
    _known: _Read | None = attrs.field(default=None, init=False)

    def change(self, jwt: RelayJwt, verifier: Verifier) -> None:
        """Follow the file of *jwt* from now on; *verifier* is what is trusted of it."""
        self._jwt, self._verifier, self._known = jwt, verifier, None

    async def run(self) -> None:
        """Follow the file until cancelled."""
        while True:
            jwt = self._jwt
            if jwt.keys.source == "file":
                read = await trio.to_thread.run_sync(_read, jwt, abandon_on_cancel=True)
                if jwt is self._jwt:
                    self._take(read)
            await trio.sleep(LOOK)

    def _take(self, read: _Read) -> None:
        known, self._known = self._known, read
        if known == read:
            return
        if read.verifier is None:
            self.fail(f"what was read before holds on: {read.problem}")
        elif read.verifier != self._verifier:
            self._verifier = read.verifier
            self.trust(read.verifier)


def _read(jwt: RelayJwt) -> _Read:
    try:
        text = reread(jwt.keys)
    except InvalidValueError as exc:
        return _Read("", problem=str(exc))
    try:
        return _Read(text, Verifier(read_jwt_keys(text, jwt.algorithms), jwt.audience))
    except (TokenKeyError, ValueError) as exc:
        return _Read(text, problem=str(exc))
