"""Find a running ``sproxy`` and ask it over its control socket."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

import cattrs
import trio

from session_proxy.errors import ControlError, ProfileError
from session_proxy.profile.loading import find_profile
from session_proxy.supervision.control_client import ask
from session_proxy.supervision.control_socket import find_listener
from session_proxy.supervision.places import control_dir, control_path

T = TypeVar("T")

# A running proxy answers in milliseconds; one that takes longer is stopped (SIGSTOP) or overwhelmed.
PATIENCE = 5.0


def ask_running(profile: Path | None, name: str | None, method: str, resource: str) -> dict[str, object]:
    """Return the JSON object that the running ``sproxy`` answers.

    It is found by *name*, else by *profile*; without both it is the only one that runs, else that of the
    profile which ``sproxy run`` would take.

    Raises:
      ControlError: none is found, or it does not answer.

    """
    path = find_running(profile, name, os.environ)
    return trio.run(_ask, path, method, resource)


async def _ask(path: Path, method: str, resource: str) -> dict[str, object]:
    try:
        with trio.fail_after(PATIENCE):
            body = await ask(path, method, resource)
    except trio.TooSlowError as exc:
        raise ControlError(f"{path}: no answer within {PATIENCE:g} s") from exc
    with contextlib.suppress(ValueError):
        answer: object = json.loads(body)
        if isinstance(answer, dict):
            return cast("dict[str, object]", answer)
    raise ControlError(f"{path}: what listens there is no sproxy")


def structure(answer: object, cls: type[T]) -> T:
    """Return *answer* as a *cls*; raises `ControlError` where it is of another shape."""
    try:
        return cattrs.Converter().structure(answer, cls)
    except (cattrs.BaseValidationError, TypeError, ValueError) as exc:
        raise ControlError("the running sproxy is of another version: its answer is not understood") from exc


def find_running(profile: Path | None, name: str | None, environ: Mapping[str, str]) -> Path:
    """Return the control socket to ask; raises `ControlError` where it cannot be told which."""
    if name is not None:
        return control_path(name, environ)
    if profile is not None:
        return control_path(profile.stem, environ)
    running = [
        path for path in sorted(control_dir(environ).glob("*.sock")) if find_listener(path) is not None
    ]
    if len(running) == 1:
        return running[0]
    if not running:
        raise ControlError(f"no sproxy is running (none listens in {control_dir(environ)})")
    try:
        found = control_path(find_profile(environ).stem, environ)
    except ProfileError:
        found = None
    if found in running:
        return found
    names = ", ".join(path.stem for path in running)
    raise ControlError(f"several are running: {names}; say which with --name")
