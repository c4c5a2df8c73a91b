"""Find a running ``sproxy`` and ask it over its control socket."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import cattrs
import trio

from session_proxy.errors import ControlError, ProfileError, SeveralRunningError
from session_proxy.profile.loading import find_profile
from session_proxy.supervision.control_client import ask_object
from session_proxy.supervision.control_socket import find_listener
from session_proxy.supervision.places import control_dir, control_path
from session_proxy.supervision.status import file_of

T = TypeVar("T")

# A running proxy answers in milliseconds; one that takes longer is stopped (SIGSTOP) or overwhelmed.
PATIENCE = 5.0


def ask_running(
    profile: Path | None, name: str | None, method: str, resource: str, patience: float | None = None
) -> dict[str, object]:
    """Return the JSON object that the running ``sproxy`` answers, which may take *patience* seconds.

    It is found by *name*, else by the file *profile*; without both it is the only one that runs, else that of
    the profile which ``sproxy run`` would take.

    Raises:
      SeveralRunningError: more than one could be meant.
      ControlError: none is found, or it does not answer.

    """
    return trio.run(
        _find_and_ask, profile, name, method, resource, PATIENCE if patience is None else patience
    )


async def _find_and_ask(
    profile: Path | None, name: str | None, method: str, resource: str, patience: float
) -> dict[str, object]:
    path = await find_running(profile, name, os.environ, command=resource.removeprefix("/"))
    return await _ask(path, method, resource, patience)


async def _ask(path: Path, method: str, resource: str, patience: float) -> dict[str, object]:
    try:
        with trio.fail_after(patience):
            return await ask_object(path, method, resource)
    except trio.TooSlowError as exc:
        raise ControlError(f"{path}: no answer within {patience:g} s") from exc


def structure(answer: object, cls: type[T]) -> T:
    """Return *answer* as a *cls*; raises `ControlError` where it is of another shape."""
    try:
        return cattrs.Converter().structure(answer, cls)
    except (cattrs.BaseValidationError, TypeError, ValueError) as exc:
        raise ControlError("the running sproxy is of another version: its answer is not understood") from exc


async def find_running(
    profile: Path | None, name: str | None, environ: Mapping[str, str], *, command: str
) -> Path:
    """Return the control socket to ask for *command*.

    Raises:
      SeveralRunningError: more than one could be meant; it says how *command* would tell them apart.
      ControlError: there is none.

    """
    if name is not None:
        return control_path(name, environ)
    running = _find_all(environ)
    if profile is not None:
        return await _find_by_file(profile, running, environ, command)
    if len(running) == 1:
        return running[0]
    if not running:
        raise ControlError(f"no sproxy is running (none listens in {control_dir(environ)})")
    try:
        return await _find_by_file(find_profile(environ), running, environ, command)
    except (ProfileError, ControlError):
        raise SeveralRunningError(
            f"several are running: {_which(running, command)}, or name the file"
        ) from None


def _which(running: Sequence[Path], command: str) -> str:
    """Return the names of the *running*, and how to tell *command* one of them."""
    names = [path.stem for path in running]
    return f"{', '.join(names)}; say which: sproxy {command} --name {names[0]}"


def _find_all(environ: Mapping[str, str]) -> list[Path]:
    sockets = sorted(control_dir(environ).glob("*.sock"))
    return [path for path in sockets if find_listener(path) is not None]


async def _find_by_file(
    profile: Path, running: Sequence[Path], environ: Mapping[str, str], command: str
) -> Path:
    """Return the socket of whoever runs *profile*: most often under its name, but that may be another's."""
    named = control_path(profile.stem, environ)
    try:
        status = await _ask(named, "GET", "/status", PATIENCE)
    except ControlError as exc:
        problem = exc
    else:
        if _runs(status, profile):
            return named
        file = file_of(status)
        what = "has no file" if file is None else f"is {file}"
        problem = ControlError(
            f'{profile} does not run; "{named.stem}" {what} (process {status.get("pid")}): '
            f"say --name {named.stem} if you mean it"
        )
    others = [path for path in running if path != named and await _runs_there(path, profile)]
    if len(others) > 1:
        raise SeveralRunningError(f"several run {profile}: {_which(others, command)}")
    if others:
        return others[0]
    raise problem


async def _runs_there(path: Path, profile: Path) -> bool:
    try:
        return _runs(await _ask(path, "GET", "/status", PATIENCE), profile)
    except ControlError:
        return False


def _runs(status: Mapping[str, object], profile: Path) -> bool:
    file = file_of(status)
    if file is None:
        return False
    try:
        return file.samefile(profile)
    except OSError:
        # It may run without its file. realpath(3) raises nothing.
        return os.path.realpath(file) == os.path.realpath(profile)
