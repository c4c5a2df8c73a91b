"""Why a daemon cannot use its state folder or audit log: found out without leaving anything there, or by trying."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from session_proxy.errors import Problem

FIX = "make room or a folder that is yours, name another one as state, or do this as the user who runs the server"

AUDIT_FIX = "name a file in a folder that is yours, or do this as the user who runs the server"


def find_problem(folder: Path) -> Problem | None:
    """Return why the server could not keep its file in *folder*, which it makes if need be; None where it could."""
    try:
        # It has no name, or one for a moment.
        with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
            file.write(b"\n")
    except OSError as exc:
        return problem_of(folder, exc)
    return None


def find_audit_problem(file: Path) -> Problem | None:
    """Return why no audit log could be kept in *file*; None where it could."""
    try:
        if file.exists():
            with file.open("ab"):
                pass
        else:
            with tempfile.TemporaryFile(dir=file.absolute().parent):
                pass
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        return Problem("audit.file", f"{file} cannot be written: {reason}", AUDIT_FIX)
    return None


def problem_of(folder: Path, exc: OSError) -> Problem:
    """Return what *exc*, met when making or writing to *folder*, means for whoever named it."""
    place = _nearest(folder)
    # Unlike the methods of `Path`, these raise nothing where a link leads to a place that is closed to us.
    if os.path.exists(place) and not os.path.isdir(place):  # noqa: PTH110, PTH112
        return Problem("state", f"{place} is a file, not a folder", FIX)
    what = "be written" if place == folder else "be made"
    return Problem("state", f"{folder} cannot {what}: {(exc.strerror or str(exc)).lower()}", FIX)


def _nearest(folder: Path) -> Path:
    """Return *folder*, or of those that it is in the nearest that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
