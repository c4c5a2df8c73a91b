"""Which relay a command goes through: an upstream of a profile, or what its options say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from session_proxy.errors import Problem, ProfileError
from session_proxy.profile.model import Profile, RelayUpstream
from session_proxy.profile.relay_upstream_checks import check_relay_upstream
from session_proxy.profile.secret_sources import SecretSources
from session_proxy.profile.structuring import Structurer

# What an upstream is called that options make.
OF_OPTIONS = "relay"

HERE = f"upstreams.{OF_OPTIONS}"
LABELS = {f"{HERE}.endpoints": "--endpoint", f"{HERE}.token": "--token-file", f"{HERE}.ca": "--ca"}


@attrs.frozen
class RelayChoice:
    """An upstream of kind relay, its name, and what tells it from others of that name: a file, or URLs."""

    name: str
    upstream: RelayUpstream
    origin: str = ""


def choose_relay(profile: Profile, name: str | None, agent: str | None) -> RelayChoice:
    """Return the upstream *name*; without one the only relay, or the only one that leads to *agent*.

    Raises:
      ProfileError: there is no such upstream, or several could be meant.

    """
    origin = "" if profile.file is None else str(profile.file.absolute())
    relays = {
        each: upstream for each, upstream in profile.upstreams.items() if isinstance(upstream, RelayUpstream)
    }
    if name is not None:
        if name in relays:
            return RelayChoice(name, relays[name], origin)
        what = "is not of kind relay" if name in profile.upstreams else "is not there"
        raise _wrong(profile, f"upstreams.{name}", what, relays)
    if not relays:
        raise _wrong(profile, "upstreams", "has no upstream of kind relay", relays)
    fitting = {each: upstream for each, upstream in relays.items() if upstream.agent == agent is not None}
    for candidates in (relays, fitting):
        if len(candidates) == 1:
            [(found, upstream)] = candidates.items()
            return RelayChoice(found, upstream, origin)
    raise _wrong(profile, "upstreams", "has several of kind relay", relays)


def relay_of_options(
    endpoints: Sequence[str], token: Path, ca: Path | None, environ: Mapping[str, str]
) -> RelayChoice:
    """Return what stands for an upstream where there is no profile.

    Raises:
      ProfileError: an option cannot be used; the problem's path is its name.

    """
    upstream: dict[str, object] = {
        "kind": "relay",
        "endpoints": [{"url": url} for url in endpoints],
        "token": f"file:{token}",
    }
    if ca is not None:
        upstream["ca"] = str(ca)
    labels = LABELS | {f"{HERE}.endpoints[{index}].url": "--endpoint" for index in range(len(endpoints))}
    notes = Structurer(SecretSources(Path().absolute(), environ), {"upstreams": {OF_OPTIONS}}, labels)
    profile = notes.structure({"upstreams": {OF_OPTIONS: upstream}}, Profile)
    found = None if profile is None else profile.upstreams.get(OF_OPTIONS)
    if isinstance(found, RelayUpstream):
        check_relay_upstream(HERE, found, notes)
    if notes.problems or not isinstance(found, RelayUpstream):
        raise ProfileError(None, notes.problems)
    return RelayChoice(OF_OPTIONS, found, " ".join(sorted(endpoints)))


def _wrong(profile: Profile, path: str, what: str, relays: Mapping[str, RelayUpstream]) -> ProfileError:
    fix = f"name one by --upstream: {', '.join(relays)}" if relays else 'write one with kind = "relay"'
    return ProfileError(profile.file, [Problem(path, what, fix)])
