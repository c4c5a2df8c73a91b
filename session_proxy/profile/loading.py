"""From a file to a `Profile`: found, parsed, overridden, structured and checked, with every problem at once.

`load_file` does this for any attrs class, so that each daemon's file is read the same way.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import attrs

from session_proxy.errors import Problem, ProfileError
from session_proxy.policy.rules import RESERVED
from session_proxy.profile import environment
from session_proxy.profile.checks import check_profile, profile_warnings
from session_proxy.profile.documents import Document, read_document
from session_proxy.profile.kinds import PROFILE, FileKind, check_kind
from session_proxy.profile.model import Profile
from session_proxy.profile.secret_sources import SecretSources
from session_proxy.profile.structuring import Structurer

T = TypeVar("T")

Warn = Callable[[str], None]
Check = Callable[[T, Structurer], None]

FILE_NAMES = ("config.toml", "config.yaml", "config.yml")

# The name of the one upstream that is made where there is no profile.
SINGLE = "instance"


def ignore_warning(_warning: str) -> None:
    """Be a `Warn` that does nothing."""


def load_profile(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    warn: Warn = ignore_warning,
) -> Profile:
    """Return the profile at *path*, or the first that `find_profile` finds.

    ``SPROXY_*`` variables of *environ* override the file's scalars, and *overrides* (dotted paths, such as
    ``limits.connect``, to values) override those. Secrets are read; a ``command:`` runs, so this may take a
    while: call it in a thread where other tasks must go on. *warn* gets what works but was hardly meant.

    Raises:
      ProfileError: the profile cannot be used; it lists every problem.

    """
    found = find_profile(environ, warn) if path is None else path
    profile = load_file(
        found,
        Profile,
        environ=environ,
        overrides=overrides,
        check=check_profile,
        warn=warn,
        kind=PROFILE,
    )
    for warning in profile_warnings(profile, time.time()):
        warn(f"{found}: {warning}")
    return _finished(attrs.evolve(profile, file=found, name=found.stem))


def find_profile(environ: Mapping[str, str], warn: Warn = ignore_warning) -> Path:
    """Return ``./config.toml|yaml``, or that of ``$XDG_CONFIG_HOME/session-proxy``.

    Raises:
      ProfileError: there is none.

    """
    home = Path(environ.get("HOME") or Path.home())
    configured = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "session-proxy"
    for folder in (Path(), configured):
        present = [folder / name for name in FILE_NAMES if (folder / name).is_file()]
        if present:
            for other in present[1:]:
                warn(f"{other}: is not read, since {present[0]} comes first")
            return present[0]
    fix = f"write ./config.toml or {configured / 'config.toml'}, or name a file"
    raise ProfileError(None, [Problem("", "there is no profile", fix)])


def load_file(
    path: Path,
    cls: type[T],
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
    check: Check[T] | None = None,
    warn: Warn = ignore_warning,
    kind: FileKind | None = None,
    beneath: Callable[[Document], Document] | None = None,
) -> T:
    """Return the file at *path* as a *cls*, an attrs class whose fields are its keys.

    *check* notes what is wrong between values that are good by themselves; its value may have holes. A file of
    another *kind* is refused as such. *beneath* gets what the file says, and lays defaults of its own beneath it.

    Raises:
      ProfileError: the file cannot be used; it lists every problem.

    """
    if kind is None:
        document = read_document(path)
    else:
        document = read_document(path, kind.example)
        check_kind(path, document, kind)
    if beneath is not None:
        document = beneath(document)
    for warning in environment.unknown_variables(document, cls, environ):
        warn(warning)
    merged, labels = environment.override(document, cls, environ)
    for dotted, value in (overrides or {}).items():
        merged = environment.replaced(merged, dotted.split("."), value)
        labels.pop(dotted, None)
    structurer = _structurer(merged, path.parent, environ, labels)
    value = _structured(structurer, merged, cls, path, check)
    for warning in _file_warnings(path, structurer):
        warn(warning)
    return value


def single_upstream_profile(
    instance: str,
    user: str | None = None,
    key: str | None = None,
    aws_profile: str | None = None,
    region: str | None = None,
    listen: str | None = None,
    *,
    environ: Mapping[str, str],
    warn: Warn = ignore_warning,
) -> Profile:
    """Return a profile that sends everything through one *instance*.

    *instance* is an id, ``tag:KEY=VALUE`` or ``name:NAME``; the other arguments are what the options of
    ``sproxy run`` say, and win over ``SPROXY_*`` variables; *warn* gets those that override nothing.

    Raises:
      ProfileError: an argument cannot be used; the problem's path is the option's name.

    """
    where = f"upstreams.{SINGLE}"
    options = {
        f"{where}.ssh.user": ("--user", user),
        f"{where}.ssh.key": ("--key", key),
        f"{where}.aws.profile": ("--aws-profile", aws_profile),
        f"{where}.aws.region": ("--region", region),
        "listen": ("--listen", listen),
    }
    document: dict[str, object] = {"default": SINGLE, "upstreams": {SINGLE: {"instances": instance}}}
    for warning in environment.unknown_variables(document, Profile, environ):
        warn(warning)
    merged, labels = environment.override(document, Profile, environ)
    labels[f"{where}.instances"] = "--instance"
    for dotted, (option, value) in options.items():
        if value is not None:
            merged = environment.replaced(merged, dotted.split("."), value)
        if value is not None or labels.get(dotted) not in environ:
            # What is missing is named so too: there is no file into which it could be written.
            labels[dotted] = option
    structurer = _structurer(merged, Path(), environ, labels)
    profile = _structured(structurer, merged, Profile, None, check_profile)
    return _finished(attrs.evolve(profile, name=SINGLE))


def _structurer(
    document: Mapping[str, object], base: Path, environ: Mapping[str, str], labels: Mapping[str, str]
) -> Structurer:
    names = {"upstreams": {*RESERVED, *environment.as_table(document.get("upstreams"))}}
    return Structurer(SecretSources(base.absolute(), environ), names, labels)


def _structured(
    structurer: Structurer,
    document: Mapping[str, object],
    cls: type[T],
    path: Path | None,
    check: Check[T] | None,
) -> T:
    value = structurer.structure(document, cls)
    if value is not None and check is not None:
        check(value, structurer)
    if structurer.problems or value is None:
        raise ProfileError(path, structurer.problems)
    return value


def _finished(profile: Profile) -> Profile:
    """Return *profile* with every upstream's `startup` decided."""
    upstreams = {
        name: attrs.evolve(upstream, startup=profile.startup_of(name))
        for name, upstream in profile.upstreams.items()
    }
    return attrs.evolve(profile, upstreams=upstreams)


def _file_warnings(path: Path, structurer: Structurer) -> list[str]:
    warnings: list[str] = []
    mode = path.stat().st_mode
    literals = [label for label in structurer.literals if label not in structurer.labels]
    if literals and stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.append(
            f"{path}: {literals[0]} is written out in a file that others can read; "
            f'chmod 600 {path}, or write "env:NAME" or "file:PATH"'
        )
    for label, file in structurer.files:
        # Unlike the method of `Path`, this raises nothing where a name is too long.
        if label.endswith(".key") and not os.path.exists(file):  # noqa: PTH110
            warnings.append(f"{path}: {label}: there is no file {file}")
    return warnings
