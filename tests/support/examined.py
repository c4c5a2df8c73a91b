"""Upstreams that were examined, as ``sproxy doctor`` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import trio

from session_proxy.diagnosis.examination import Loaded, cases_of, examine
from session_proxy.diagnosis.report import Diagnosis
from session_proxy.outbound.transport import Services
from session_proxy.profile.model import Profile, Upstream
from session_proxy.target import Target


async def examined(
    loaded: Loaded, environ: Mapping[str, str], *, target: str | None = None, base: Path | None = None
) -> list[Diagnosis]:
    """Return what was found about all that a file names."""
    told: list[Diagnosis] = []
    services = Services(environ=environ)
    cases = cases_of(loaded, None if target is None else Target.parse(target))
    with trio.fail_after(60):
        found = await examine(cases, services, base or Path(), tell=told.append)
    assert {id(each) for each in told} == {id(each) for each in found}
    return found


async def examined_upstream(
    upstream: Upstream, environ: Mapping[str, str], *, target: str | None = None, base: Path | None = None
) -> Diagnosis:
    """Return what was found about an upstream that is called dev, by its first way."""
    profile = Profile(upstreams={"dev": upstream})
    return (await examined(profile, environ, target=target, base=base))[0]
