"""A session that AWS has started, with which credentials, and what its data channel needs of the control calls."""

from __future__ import annotations

from typing import Protocol

import attrs


@attrs.frozen
class StartedSession:
    """What StartSession or ResumeSession answered; the token opens the data channel once."""

    session_id: str
    token: str = attrs.field(repr=False)
    stream_url: str


@attrs.frozen(kw_only=True)
class AwsCredentials:
    """Which credentials AWS is asked with, and where.

    Attributes:
      source: Where they come from, in words.
      key: The access key's id.
      expires: Until when they hold, in seconds of Unix time; None where that is not said.
      region: Which region's instances are meant.
      endpoint: The URL of Session Manager.

    """

    source: str
    key: str
    expires: float | None
    region: str
    endpoint: str


class SessionControl(Protocol):
    """The control calls that a data channel makes: `session_proxy.ssm.control.Control`, or a fake."""

    async def resume(self, session_id: str) -> StartedSession:
        """Return a new token; raises `SessionEndedError` where the session is over, else `AwsError`."""
        ...

    async def terminate(self, session_id: str) -> None:
        """End the session at AWS; raises `AwsError`."""
        ...
