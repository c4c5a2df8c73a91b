"""From ``server.toml`` and ``client.toml`` to values, as profiles are: with every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from session_proxy.profile.awg_checks import awg_warnings, check_server, check_session
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.checks import check_auth, check_listens
from session_proxy.profile.documents import read_document
from session_proxy.profile.kinds import AWG_CLIENT, AWG_SERVER, kind_of
from session_proxy.profile.loading import Warn, ignore_warning, load_file
from session_proxy.profile.structuring import Structurer


def load_awg_server(path: Path, *, environ: Mapping[str, str], warn: Warn = ignore_warning) -> AwgServer:
    """Return the ``server.toml`` at *path*; see `session_proxy.profile.loading.load_profile`.

    Raises:
      ProfileError: the file cannot be used; it lists every problem.

    """
    server = load_file(path, AwgServer, environ=environ, check=check_server, warn=warn, kind=AWG_SERVER)
    for warning in awg_warnings("", server):
        warn(f"{path}: {warning}")
    return attrs.evolve(server, file=path, name=path.stem)


def load_awg_client(path: Path, *, environ: Mapping[str, str], warn: Warn = ignore_warning) -> AwgClient:
    """Return the ``client.toml`` at *path*; see `session_proxy.profile.loading.load_profile`.

    Raises:
      ProfileError: the file cannot be used; it lists every problem.

    """
    client = load_file(path, AwgClient, environ=environ, check=_check_client, warn=warn, kind=AWG_CLIENT)
    for warning in awg_warnings("", client):
        warn(f"{path}: {warning}")
    return client


def load_awg_file(
    path: Path, *, environ: Mapping[str, str], warn: Warn = ignore_warning
) -> AwgClient | AwgServer | None:
    """Return the ``client.toml`` or ``server.toml`` at *path*, whichever it is; None if it seems to be a profile.

    Raises:
      ProfileError: the file cannot be used; it lists every problem.

    """
    kind = kind_of(read_document(path))
    if kind is AWG_CLIENT:
        return load_awg_client(path, environ=environ, warn=warn)
    return load_awg_server(path, environ=environ, warn=warn) if kind is AWG_SERVER else None


def _check_client(client: AwgClient, notes: Structurer) -> None:
    check_listens(client.listen, client.admin, notes)
    check_auth(client.auth, notes)
    check_session("", client, notes)
