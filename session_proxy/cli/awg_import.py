"""``sproxy awg-import``: AmneziaWG's own files, into ours and back."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from awg_obfs.protocol.conf import ConfFile
    from session_proxy.errors import Problem
    from session_proxy.profile.awg_model import AwgClient, AwgServer


def awg_import(
    file: Annotated[
        Path,
        typer.Argument(readable=False, metavar="FILE", help="A .conf of AmneziaWG; with --export, ours."),
    ],
    export: Annotated[
        bool, typer.Option("--export", help="The other way: from a server.toml or client.toml to a .conf.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            readable=False,
            metavar="FILE",
            help="Write a new file that only its owner may read. Absent, it is printed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn AmneziaWG's wg0.conf into a client.toml or server.toml, or back.

    A .conf whose peer has an Endpoint becomes a client's file, one whose peers have none a server's. Both
    sides have to be sproxy: AmneziaWG carries IP packets, and this carries QUIC in the same sessions. What has
    no effect here (Address, DNS, AllowedIPs, …) is kept for the way back, and named on stderr; so is what a .conf
    has no words for, with --export.
    """
    from session_proxy.profile.private_files import write_new

    text, warnings = _exported(file) if export else _imported(file)
    for warning in warnings:
        typer.echo(f"warning: {file}: {warning}", err=True)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_new({output: text})


def _imported(file: Path) -> tuple[str, tuple[str, ...]]:
    from awg_obfs.protocol.randomness import PooledRandomness
    from session_proxy.errors import ProfileError
    from session_proxy.profile.awg_writing import import_conf, import_warnings

    conf = _read_conf(file)
    try:
        return import_conf(conf, PooledRandomness(os.urandom)), import_warnings(conf)
    except ProfileError as exc:
        raise ProfileError(file, exc.problems) from exc


def _exported(file: Path) -> tuple[str, tuple[str, ...]]:
    from session_proxy.profile.awg_losses import export_losses
    from session_proxy.profile.awg_writing import export_conf

    loaded = _load(file)
    conf = export_conf(loaded)
    return conf.as_text(), (*export_losses(loaded), *conf.export_warnings)


def _load(file: Path) -> AwgClient | AwgServer:
    from session_proxy.errors import Problem, ProfileError
    from session_proxy.profile.awg_loading import load_awg_file

    loaded = load_awg_file(file, environ=os.environ)
    if loaded is None:
        fix = "name a server.toml or client.toml"
        raise ProfileError(file, [Problem("", "is neither a server's file nor a client's", fix)])
    return loaded


def _read_conf(file: Path) -> ConfFile:
    from awg_obfs.errors import ConfFileError
    from awg_obfs.protocol.conf import ConfFile
    from session_proxy.errors import Problem, ProfileError
    from session_proxy.profile.documents import read_text

    text = read_text(file, "wg0.conf")
    try:
        return ConfFile.parse(text)
    except ConfFileError as exc:
        problem = _ours(file)
        problems = [Problem("", fault.message, fault.fix, fault.line) for fault in exc.problems]
        raise ProfileError(file, problems if problem is None else [problem]) from exc


def _ours(file: Path) -> Problem | None:
    """Return what to do with a file of ours where a .conf was meant; None where it is none of ours."""
    from session_proxy.errors import Problem, ProfileError
    from session_proxy.profile.documents import read_document
    from session_proxy.profile.kinds import PROFILE, kind_of

    try:
        keys = read_document(file).keys()
    except ProfileError:
        return None
    kind = kind_of(keys)
    if not keys & kind.own_keys:
        return None
    if kind is PROFILE:
        return Problem("", "is a profile, not a .conf", "name a .conf of AmneziaWG")
    command = f"sproxy awg-import --export {shlex.quote(str(file))}"
    return Problem("", f"is {kind.words}, not a .conf", f'turn it into one with "{command}"')
