"""Files that only their owner may read: configurations with keys, and what a server remembers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from session_proxy.errors import SessionProxyError


class OccupiedError(SessionProxyError):
    """A file is there already where a new one was to be."""


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
      OccupiedError: one of them is there already.
      OSError: one cannot be written.

    """
    made: list[Path] = []
    try:
        for path, text in texts.items():
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError as exc:
                raise OccupiedError(f"{path}: is there already; name another place, or remove it") from exc
            made.append(path)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
    except (OSError, OccupiedError):
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
