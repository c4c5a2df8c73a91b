"""Whether a server of kind awg could use its state folder, found out without leaving anything there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from session_proxy.errors import Problem

FIX = (
    "make room or a folder that is yours, name another one as state, or check as the user who runs the server"
)


def find_problem(folder: Path) -> Problem | None:
    """Return why the server could not keep its file in *folder*, which it makes if need be; None where it could."""
    place = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    try:
        # It has no name, or one for a moment.
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\n")
    except OSError as exc:
        what = "be written" if place == folder else "be made"
        return Problem("state", f"{folder} cannot {what}: {(exc.strerror or str(exc)).lower()}", FIX)
    return None
