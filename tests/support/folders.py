"""Folders for sockets, whose paths have to be short, as those of tests are not."""

from __future__ import annotations

import atexit
import shutil
import tempfile


def runtime_folder() -> str:
    """Return a folder of its own with a short path; it goes away with the tests."""
    folder = tempfile.mkdtemp(prefix="sproxy-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
