"""``sproxy relay-audit``: is an audit log what the relay wrote?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from session_proxy.cli.options import JsonOption, open_given
from session_proxy.errors import ExitCode

if TYPE_CHECKING:
    from tunnel_relay.protocol.audit_chain import Damaged, Head, Intact

# Longer than any line that a relay writes. One that somebody else wrote is taken in pieces, and so found out.
LONGEST_LINE = 4 << 20

relay_audit = typer.Typer(
    help="Look after the audit log of a relay.", no_args_is_help=True, rich_markup_mode=None
)


@relay_audit.command(short_help="Find the first line of a log that was altered.")
def verify(
    file: Annotated[
        Path,
        typer.Argument(
            readable=False,
            metavar="FILE",
            help="The audit log; each worker of a relay writes one of its own.",
        ),
    ],
    noted: Annotated[
        str | None,
        typer.Option(
            metavar="HEAD", help="A head that an earlier run printed: whatever was before it is proven too."
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="HEAD", help="The head of the log before this one, where logs are rotated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Verify that no line of an audit log was altered, removed, moved or added: exit 0 if so, 1 if not, 78 if
    it cannot be read.

    Printed is the first line where that shows, or else the log's head. Note the head where whoever writes the log
    cannot change it: without a noted one, a log whose end was cut off, or that was written anew, looks good.
    """
    from tunnel_relay.protocol import audit_chain

    heads = _read_head(noted, "--noted"), _read_head(after, "--after")
    with open_given(file) as log:
        found = audit_chain.verify(_lines(log), noted=heads[0], after=heads[1])
    intact = isinstance(found, audit_chain.Intact)
    typer.echo(json.dumps(_report(file, found), indent=2) if as_json else _sentence(file, found))
    raise typer.Exit(ExitCode.OK if intact else ExitCode.FAILURE)


def _lines(log: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: log.readline(LONGEST_LINE), b"")


def _read_head(text: str | None, option: str) -> Head | None:
    from tunnel_relay.protocol.audit_chain import read_head

    if text is None:
        return None
    try:
        return read_head(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint=option) from exc


def _sentence(file: Path, found: Intact | Damaged) -> str:
    from tunnel_relay.protocol.audit_chain import Damaged

    if isinstance(found, Damaged):
        return f"{file}:{found.line}: {found.detail}"
    return f"{file}: good, up to entry {found.head.number}\n  head  {found.head}"


def _report(file: Path, found: Intact | Damaged) -> dict[str, object]:
    from tunnel_relay.protocol.audit_chain import Damaged

    report: dict[str, object] = {
        "file": str(file),
        "ok": not isinstance(found, Damaged),
        "head": str(found.head),
    }
    if isinstance(found, Damaged):
        report |= {"line": found.line, "damage": found.damage.value, "detail": found.detail}
    return report
