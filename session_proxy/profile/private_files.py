"""Files that only their owner may read: configurations with keys, and what a server remembers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping
from pathlib import Path

from session_proxy.errors import ExitCode, SessionProxyError


class OutputError(SessionProxyError):
    """A new file cannot be where somebody wants it; says why, and what to do."""

    exit_code = ExitCode.CONFIGURATION


def make_folder(path: Path) -> None:
    """Make the folder *path*, and those above it; only its owner may look into a new one.

    Raises:
      OutputError: it cannot be made.

    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as exc:
        raise OutputError(f"{path}: is a file; name a folder") from exc
    except OSError as exc:
        raise OutputError(f"{path}: cannot be made: {_reason(exc)}; name another folder") from exc


def write_private(path: Path, text: str) -> None:
    """Write *text* to *path*, readable by its owner only, in one step: a reader sees all of it or the old.

    What was there before is there still where the disk is full.

    Raises:
      OSError: it cannot be written.

    """
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600, exist_ok=False)
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def write_new(texts: Mapping[Path, str]) -> None:
    """Write new files, readable by their owner only: all of them, or none.

    Raises:
      OutputError: one of them is there already, or cannot be written.

    """
    made: list[Path] = []
    try:
        for path, text in texts.items():
            with _saying_where(path):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                made.append(path)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
    except OutputError:
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


@contextlib.contextmanager
def _saying_where(path: Path) -> Generator[None]:
    try:
        yield
    except FileExistsError as exc:
        raise OutputError(f"{path}: is there already; name another place, or remove it") from exc
    except FileNotFoundError as exc:
        fix = "make the folder, or name another place"
        raise OutputError(f"{path}: there is no folder {path.parent}; {fix}") from exc
    except OSError as exc:
        raise OutputError(f"{path}: cannot be written: {_reason(exc)}; name another place") from exc


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()
