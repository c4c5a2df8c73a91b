"""The ``sproxy`` command: what it consists of, and how it ends when something is wrong.

Every problem is one line on stderr, and the exit code says which kind it is; only a bug shows its traceback.
Modules that take long to import (boto3, paramiko) are imported by the commands that need them, when they run.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from typing import Annotated, NoReturn, cast

import typer

from session_proxy.cli.awg_client import awg_client
from session_proxy.cli.awg_import import awg_import
from session_proxy.cli.awg_keygen import awg_keygen
from session_proxy.cli.awg_server import awg_server
from session_proxy.cli.check import check
from session_proxy.cli.completion import PROGRAM, completion, prepare_completion
from session_proxy.cli.demo import demo
from session_proxy.cli.doctor import doctor
from session_proxy.cli.drain import drain
from session_proxy.cli.explain import explain
from session_proxy.cli.lab import fault_table, lab
from session_proxy.cli.relay_agent import relay_agent
from session_proxy.cli.relay_audit import relay_audit
from session_proxy.cli.relay_request import relay_request
from session_proxy.cli.relay_server import relay_server
from session_proxy.cli.relay_ssh import relay_ssh
from session_proxy.cli.relay_token import relay_token
from session_proxy.cli.reload import reload
from session_proxy.cli.run import run
from session_proxy.cli.status import status
from session_proxy.errors import ExitCode, SessionProxyError
from tunnel_relay.errors import TunnelRelayError

# Whatever the world outside can do to a command. Anything else is a bug, and keeps its traceback.
EXPECTED = (SessionProxyError, TunnelRelayError, OSError)

app = typer.Typer(
    help="One SOCKS5 and HTTP proxy port, one route table, and supervised transports behind it.",
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 69 unreachable, 77 not permitted, 78 configuration, "
    "130 Ctrl-C.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command(short_help="Report every problem of a profile.")(check)
app.command(short_help="Show which route takes a destination, and why.")(explain)
app.command(short_help="Find out what is wrong with each upstream, and what to do.")(doctor)
app.command()(status)
app.command(short_help="Have a running sproxy take over its file.")(reload)
app.command()(drain)
app.command(short_help="Serve peers: the far end of upstreams of kind awg.")(awg_server)
app.command(short_help="Serve a proxy port, straight into one awg-server.")(awg_client)
app.command(short_help="Make a server and a client of kind awg that fit.")(awg_keygen)
app.command(short_help="Turn AmneziaWG's .conf into our files, or back.")(awg_import)
app.command(short_help="Join clients to agents behind NAT: the public server.")(relay_server)
app.command(short_help="Offer services of this machine through a relay.")(relay_agent)
app.command(short_help="Reach an agent's SSH server: a ProxyCommand.")(relay_ssh)
app.command(short_help="Send one payload through a relay, get one response.")(relay_request)
app.command(short_help="Issue tokens for a relay, or make keys for them.")(relay_token)
app.command(short_help="See every transport work, on this machine alone.")(demo)
app.command(short_help="Play AWS, its agents and targets, for tests.", epilog=fault_table())(lab)
app.command()(completion)
app.add_typer(relay_audit, name="relay-audit", short_help="Look after the audit log of a relay.")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sproxy {version('session-proxy')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> NoReturn:
    """Run ``sproxy``; never returns."""
    _hold_standard_streams()
    prepare_completion(os.environ)
    sys.exit(_run())


def _run() -> int:
    try:
        app(prog_name=PROGRAM)
    except BaseException as exc:
        leaves = list(flatten(exc))
        if any(isinstance(leaf, SystemExit) for leaf in leaves):
            raise
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            return ExitCode.INTERRUPTED
        return report(leaves)
    return ExitCode.OK


def flatten(exc: BaseException) -> Iterator[BaseException]:
    """Yield *exc*, or what it holds where it is a group. Nowhere else are groups taken apart."""
    if isinstance(exc, BaseExceptionGroup):
        for part in cast("BaseExceptionGroup[BaseException]", exc).exceptions:
            yield from flatten(part)
    else:
        yield exc


def report(problems: list[BaseException]) -> int:
    """Print each of *problems* on a line of its own, and bugs whole; return the exit code.

    That is the code of the first problem, or `ExitCode.FAILURE` where there is a bug.
    """
    bugs = [problem for problem in problems if not isinstance(problem, EXPECTED)]
    for bug in bugs:
        # One by one: the interpreter shows groups down to the tenth, and nurseries are nested deeper than that.
        for line in "".join(traceback.format_exception(bug)).splitlines():
            typer.echo(_printable(line), err=True)
    rest = [problem for problem in problems if isinstance(problem, EXPECTED)]
    for line in dict.fromkeys(line for problem in rest for line in _told(problem).splitlines()):
        typer.echo(f"sproxy: {_printable(line)}", err=True)
    first = problems[0]
    return first.exit_code if isinstance(first, SessionProxyError) and not bugs else ExitCode.FAILURE


def _told(problem: BaseException) -> str:
    """Return *problem* as a person reads it: what the kernel refuses begins with the path, as all problems do."""
    if isinstance(problem, OSError) and problem.strerror and problem.filename is not None:
        return f"{problem.filename}: {problem.strerror.lower()}"
    return str(problem)


def _printable(line: str) -> str:
    """Return *line* without what steers a terminal: what a peer said may be part of it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _hold_standard_streams() -> None:
    """Open what was closed (``2>&-``): else the first socket would be taken for stderr, and get the log."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
