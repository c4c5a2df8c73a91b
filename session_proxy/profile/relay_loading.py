"""From ``relay.toml`` and ``agent.toml`` to values, as profiles are: with every problem at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import attrs

from session_proxy.profile.documents import Document, read_document
from session_proxy.profile.environment import variable
from session_proxy.profile.kinds import RELAY_AGENT, RELAY_SERVER, kind_of
from session_proxy.profile.loading import Warn, ignore_warning, load_file
from session_proxy.profile.relay_checks import (
    check_relay_agent,
    check_relay_server,
    relay_agent_warnings,
    relay_server_warnings,
)
from session_proxy.profile.relay_model import RelayAgent, RelayServer
from session_proxy.profile.relay_presets import PRESETS, as_document, lay_over


def load_relay_server(path: Path, *, environ: Mapping[str, str], warn: Warn = ignore_warning) -> RelayServer:
    """Return the ``relay.toml`` at *path*; see `session_proxy.profile.loading.load_profile`.

    Raises:
      ProfileError: the file cannot be used; it lists every problem.

    """

    def beneath(document: Document) -> Document:
        # Whatever is no preset is told when the key is read.
        chosen = environ.get(variable(["profile"]), document.get("profile"))
        preset = next((preset for name, preset in PRESETS.items() if name == chosen), PRESETS["production"])
        return lay_over(document, as_document(preset))

    server = load_file(
        path,
        RelayServer,
        environ=environ,
        check=check_relay_server,
        warn=warn,
        kind=RELAY_SERVER,
        beneath=beneath,
    )
    for warning in relay_server_warnings(server):
        warn(f"{path}: {warning}")
    return attrs.evolve(server, file=path, name=path.stem)


def load_relay_agent(path: Path, *, environ: Mapping[str, str], warn: Warn = ignore_warning) -> RelayAgent:
    """Return the ``agent.toml`` at *path*; see `session_proxy.profile.loading.load_profile`.

    Raises:
      ProfileError: the file cannot be used; it lists every problem.

    """
    agent = load_file(path, RelayAgent, environ=environ, check=check_relay_agent, warn=warn, kind=RELAY_AGENT)
    for warning in relay_agent_warnings(agent, time.time()):
        warn(f"{path}: {warning}")
    return attrs.evolve(agent, file=path, control=path.stem)


def load_relay_file(
    path: Path, *, environ: Mapping[str, str], warn: Warn = ignore_warning
) -> RelayServer | RelayAgent | None:
    """Return the ``relay.toml`` or ``agent.toml`` at *path*, whichever it is; None if it is of another kind.

    Raises:
      ProfileError: the file cannot be used; it lists every problem.

    """
    kind = kind_of(read_document(path))
    if kind is RELAY_SERVER:
        return load_relay_server(path, environ=environ, warn=warn)
    return load_relay_agent(path, environ=environ, warn=warn) if kind is RELAY_AGENT else None
