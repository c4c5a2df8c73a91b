"""``sproxy doctor``: what is wrong with the upstreams of a profile, and what to do about it?"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_proxy.cli.options import JsonOption, ProfileArgument, wrong_target
from session_proxy.errors import ControlError, ExitCode, InvalidTargetError, ProfileError
from session_proxy.profile.awg_model import SERVER, AwgClient
from session_proxy.profile.model import AwgUpstream, Profile
from session_proxy.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from session_proxy.diagnosis.examination import Case
    from session_proxy.diagnosis.report import Diagnosis

UpstreamOption = Annotated[
    str | None,
    typer.Option("--upstream", metavar="NAME", help="Examine this upstream only.", show_default=False),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        help="What to connect to through each upstream; absent, something that shows that it carries.",
        show_default=False,
    ),
]


def doctor(
    profile: ProfileArgument = None,
    upstream: UpstreamOption = None,
    target: TargetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go through every upstream of a profile stage by stage, and say what is wrong and what to do.

    The stages: configuration, credentials and their expiry, names, reach (TCP or UDP), TLS, the protocol's handshake,
    SSH, and an echo: a connection through it. What comes after a failure is skipped; the other upstreams go on.

    The files of awg-client and relay-agent are examined, too; those of servers are checked. Exits with 0 where all
    works, else with the worst of 69 (unreachable), 77 (not permitted) and 78 (configuration).
    """
    destination = _read_target(target)
    from session_proxy.cli.check import load_any
    from session_proxy.diagnosis.examination import cases_of, file_diagnosis, refused_file, warnings_about
    from session_proxy.diagnosis.report import render, worst

    def show(diagnosis: Diagnosis) -> None:
        if not as_json:
            typer.echo("\n".join(render(diagnosis)))

    warnings: list[str] = []
    began = time.monotonic()
    found: list[Diagnosis] = []
    try:
        loaded = load_any(profile, warnings.append)
    except ProfileError as exc:
        found.append(refused_file(exc, time.monotonic() - began))
        show(found[0])
    else:
        took = time.monotonic() - began
        file = loaded.file if isinstance(loaded, Profile) else profile
        cases = cases_of(loaded, destination, _carried(file, loaded))
        general = [text for text in warnings if not any(warnings_about(case.name, [text]) for case in cases)]
        cases = _chosen(cases, upstream)
        found.append(file_diagnosis(file, took, general, _count(cases)))
        show(found[0])
        found += _examine(cases, Path() if file is None else file.parent, warnings, show)
    if as_json:
        typer.echo(json.dumps(_report(found), indent=2))
    raise typer.Exit(worst(found))


def _read_target(text: str | None) -> Target | None:
    if text is None:
        return None
    try:
        return Target.parse(text)
    except InvalidTargetError as exc:
        raise wrong_target(exc, "--target") from exc


def _carried(file: Path | None, loaded: object) -> Mapping[str, str]:
    """Return what a running sproxy says of those of its upstreams of kind awg that work."""
    if isinstance(loaded, AwgClient):
        names = {SERVER}
    elif isinstance(loaded, Profile):
        names = {name for name, each in loaded.upstreams.items() if isinstance(each, AwgUpstream)}
    else:
        names = set[str]()
    if not names:
        return {}
    from session_proxy.cli.asking import ask_running, structure
    from session_proxy.supervision.status import ProxyStatus, ServiceStatus

    try:
        answer = ask_running(file, None, "GET", "/status")
        service, proxy = structure(answer, ServiceStatus), structure(answer, ProxyStatus)
    except ControlError:
        return {}
    return {
        name: "; ".join(
            [
                f"{service.name} runs (process {service.pid}) and has the session",
                *map(" ".join, status.details.items()),
            ]
        )
        for name, status in proxy.upstreams.items()
        if name in names and status.state == "ready"
    }


def _chosen(cases: Sequence[Case], name: str | None) -> Sequence[Case]:
    if name is None:
        return cases
    names = list(dict.fromkeys(case.name for case in cases))
    if name not in names:
        there = f"there is {', '.join(names)}" if names else "there is none to examine"
        raise typer.BadParameter(f"there is no upstream {name!r}; {there}", param_hint="--upstream")
    return [case for case in cases if case.name == name]


def _count(cases: Sequence[Case]) -> str:
    ways = len(cases)
    return f"{ways} {'way' if ways == 1 else 'ways'} to examine" if ways else "nothing to connect to"


def _examine(
    cases: Sequence[Case], base: Path, warnings: Sequence[str], tell: Callable[[Diagnosis], None]
) -> list[Diagnosis]:
    import trio

    from session_proxy.diagnosis.examination import examine
    from session_proxy.outbound.transport import Services
    from session_proxy.supervision.places import state_dir

    services = Services(environ=os.environ.copy(), state_dir=state_dir(os.environ))

    async def main() -> list[Diagnosis]:
        found: list[Diagnosis] = []
        interrupted = False

        async def heed_interrupt(task_status: trio.TaskStatus[None]) -> None:
            nonlocal interrupted
            with trio.open_signal_receiver(signal.SIGINT) as signals:
                task_status.started()
                async for _ in signals:
                    # What was begun is ended in order: no session is left at AWS. The next Ctrl-C is one at once.
                    interrupted = True
                    nursery.cancel_scope.cancel()
                    return

        async with trio.open_nursery() as nursery:
            await nursery.start(heed_interrupt)
            found = await examine(cases, services, base, warnings=warnings, tell=tell)
            nursery.cancel_scope.cancel()
        if interrupted:
            raise KeyboardInterrupt
        return found

    return trio.run(main)


def _report(found: Sequence[Diagnosis]) -> dict[str, object]:
    from session_proxy.diagnosis.report import worst

    file, *upstreams = found
    code = worst(found)
    return {
        "file": file.as_json(),
        "ok": code is ExitCode.OK,
        "exit_code": int(code),
        "upstreams": [each.as_json() for each in upstreams],
    }
