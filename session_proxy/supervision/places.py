"""Where a running service keeps its control socket and its state (XDG Base Directory Specification)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


def service_name(text: str) -> str:
    """Return *text* (a profile's stem, an instance id) as it may stand in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "default"


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder for what outlives a run: ``$XDG_STATE_HOME/session-proxy``, or its default."""
    if state := environ.get("XDG_STATE_HOME"):
        return Path(state, "session-proxy")
    return Path(environ.get("HOME") or Path.home(), ".local", "state", "session-proxy")


def control_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of the control sockets: under ``$XDG_RUNTIME_DIR``, else the state folder."""
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "session-proxy")
    return state_dir(environ)


def control_path(name: str, environ: Mapping[str, str]) -> Path:
    """Return where the control socket of the service *name* is."""
    return control_dir(environ) / f"{service_name(name)}.sock"


def fleet_dir(name: str, environ: Mapping[str, str]) -> Path:
    """Return the folder for the sockets of the workers of the service *name*."""
    return control_dir(environ) / f"{service_name(name)}.workers"
