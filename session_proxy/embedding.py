"""Use a profile's routes and upstreams from a Trio program, without a port in between."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import trio

from session_proxy.events import Notify, ignore
from session_proxy.outbound.failover import open_dialer
from session_proxy.outbound.transport import Services
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import Profile
from session_proxy.target import Target


class Dial(Protocol):
    """Opens connections the way the profile's routes say."""

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        """Connect to *host*:*port*; the stream can half-close where its upstream can.

        The caller's deadline bounds the attempt, and ``limits.connect`` of the profile where there is none.

        Raises:
          DialError: no upstream of the route could connect, or the route rejects the destination.
          InvalidTargetError: *host* is no host name or address, or *port* no port.

        """
        ...


@asynccontextmanager
async def open(profile: Profile | Path | str, *, notify: Notify = ignore) -> AsyncGenerator[Dial]:  # noqa: A001
    """Open the upstreams of *profile*, a file or a value, and yield the function that dials through them.

    Yields when every required upstream works; they are closed when the block ends, and so are the streams.
    Nothing listens and nothing is logged: *notify* gets the events.

    Raises:
      ProfileError: the file cannot be used.
      UpstreamStartError: a required upstream does not work.

    """
    if not isinstance(profile, Profile):
        # Secrets are read here, and a "command:" secret runs.
        profile = await trio.to_thread.run_sync(_load, Path(profile))
    async with open_dialer(profile, Services(notify=notify)) as dialer:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            target = Target.of(host, port)
            return (await dialer.connect(target, await dialer.decide(target))).stream

        yield dial


def _load(path: Path) -> Profile:
    return load_profile(path, environ=os.environ)
