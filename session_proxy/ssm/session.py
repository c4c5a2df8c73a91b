"""A session that AWS has started, and what its data channel needs of the control calls."""

from __future__ import annotations

from typing import Protocol

import attrs


@attrs.frozen
class StartedSession:
    """What StartSession or ResumeSession answered; the token opens the data channel once."""

    session_id: str
    token: str = attrs.field(repr=False)
    stream_url: str


class SessionControl(Protocol):
    """The control calls that a data channel makes: `session_proxy.ssm.control.Control`, or a fake."""

    async def resume(self, session_id: str) -> StartedSession:
        """Return a new token; raises `SessionEndedError` where the session is over, else `AwsError`."""
        ...

    async def terminate(self, session_id: str) -> None:
        """End the session at AWS; raises `AwsError`."""
        ...
