"""``sproxy relay-request``: one payload to what an agent reaches, and one response."""

from __future__ import annotations

import base64
import enum
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_proxy.cli.options import JsonOption, open_given, wrong_target
from session_proxy.cli.relay_options import (
    CaOption,
    EndpointOption,
    ProfileOption,
    RelayOptions,
    TokenFileOption,
    UpstreamOption,
    check_name,
)
from session_proxy.errors import ExitCode, InvalidTargetError
from session_proxy.target import Target

if TYPE_CHECKING:
    from session_proxy.profile.relay_choice import RelayChoice
    from session_proxy.supervision.relay_request import Leftovers
    from tunnel_relay.client.forwarding import UnknownOutcome
    from tunnel_relay.protocol.requests import Request, Response, Status


class PriorityName(enum.StrEnum):
    """What goes first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def relay_request(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="A service of the agent; HOST:PORT behind it where the relay speaks SSH.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The payload. Without it, standard input.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="FILE", help="The file that is the payload.", show_default=False
        ),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="What tells this request from others: one is done once. Default: a new one.",
            show_default=False,
        ),
    ] = None,
    priority: Annotated[
        PriorityName, typer.Option(help="What goes first; high is kept on disk until it is done.")
    ] = PriorityName.NORMAL,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="How long the response may take. Default: 30.",
            min=0.001,
            max=86400,
            show_default=False,
        ),
    ] = 30.0,
    max_size: Annotated[
        int,
        typer.Option(
            metavar="BYTES",
            help="How long the response may be. Default: 1048576.",
            min=0,
            max=16 * 1024 * 1024,
            show_default=False,
        ),
    ] = 1024 * 1024,
    flush: Annotated[
        bool,
        typer.Option("--flush", help="Make what earlier runs have left, instead of another request."),
    ] = False,
    as_json: JsonOption = False,
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which agent. Default: the upstream's.", show_default=False),
    ] = None,
    profile: ProfileOption = None,
    upstream: UpstreamOption = None,
    endpoint: EndpointOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
) -> None:
    """Send one payload through a relay, and print what the target says until its end.

    The target is connected to, gets the payload and its end, and is heard out. What is lost on the way is asked for
    again, and still done once. With --priority high the request is on disk before it is sent: what is not done when
    the time is up, or this process ends, is made by the next one. Exit codes: 0 done, 69 the target or the agent was
    not reached, 77 not allowed, 1 anything else: it may have been done, then, and you are told what to ask again with.
    """
    options = RelayOptions(profile, upstream, endpoint, token_file, ca)
    options.check()
    if agent is not None:
        check_name(agent, "--agent")
    if flush:
        if target is not None or data is not None or file is not None or identity is not None:
            raise typer.BadParameter("makes what is left, and no other request", param_hint="--flush")
        raise typer.Exit(_flush(options.choose(agent), timeout, as_json=as_json))
    if target is None:
        raise typer.BadParameter("say where the payload goes, or --flush", param_hint="TARGET")
    if data is not None and file is not None:
        raise typer.BadParameter("the payload is given twice", param_hint="--file")
    choice = options.choose(agent)
    _check_target(target, choice)
    request = _compose(identity, target, _payload(data, file), max_size, timeout)
    raise typer.Exit(_request(choice, request, priority, as_json=as_json))


def _check_target(target: str, choice: RelayChoice) -> None:
    if choice.upstream.mode == "end-to-end":
        if ":" in target:
            text = f'{target!r} is no service of the agent; HOST:PORT is for mode = "relay-ssh"'
            raise typer.BadParameter(text, param_hint="TARGET")
        check_name(target, "TARGET")
        return
    try:
        Target.parse(target)
    except InvalidTargetError as exc:
        raise wrong_target(exc, "TARGET") from exc


def _payload(data: str | None, file: Path | None) -> bytes:
    from tunnel_relay.protocol.requests import MAX_REQUEST

    if data is not None:
        return data.encode("utf-8", "surrogateescape")
    if file is None:
        return sys.stdin.buffer.read(MAX_REQUEST + 1)
    with open_given(file) as source:
        return source.read(MAX_REQUEST + 1)


def _compose(identity: str | None, target: str, payload: bytes, most: int, seconds: float) -> Request:
    from tunnel_relay.protocol.requests import MAX_REQUEST, Request

    if len(payload) > MAX_REQUEST:
        raise typer.BadParameter(f"the payload is longer than {MAX_REQUEST} bytes", param_hint="--file")
    name = os.urandom(16).hex() if identity is None else identity
    try:
        return Request(id=name, target=target, payload=payload, most=most, time=seconds)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--id") from exc


def _request(choice: RelayChoice, request: Request, priority: PriorityName, *, as_json: bool) -> int:
    # Everything that is slow to import comes with these.
    import time

    import trio

    from session_proxy.supervision.relay_request import Leftovers, make_request
    from tunnel_relay.policy.outbox import Priority
    from tunnel_relay.protocol.requests import Status

    leftovers = Leftovers()
    urgency = Priority[priority.name]
    began = time.monotonic()
    try:
        response = trio.run(make_request, choice, os.environ, request, urgency, leftovers)
    finally:
        _warn(leftovers)
    if as_json:
        seconds = round(time.monotonic() - began, 6)
        typer.echo(json.dumps(report(request, response) | {"seconds": seconds}, indent=2))
    else:
        sys.stdout.buffer.write(response.payload)
        sys.stdout.buffer.flush()
    if response.status is not Status.DONE:
        typer.echo(f"sproxy: {_told(request, response)}", err=True)
    return exit_code(response.status)


def _flush(choice: RelayChoice, patience: float, *, as_json: bool) -> int:
    import trio

    from session_proxy.supervision.relay_request import Leftovers, flush_requests
    from tunnel_relay.protocol.requests import Status

    leftovers = Leftovers()
    try:
        trio.run(flush_requests, choice, os.environ, patience, leftovers)
    finally:
        if as_json:
            answered = [report(request, response) for request, response in leftovers.answered]
            unknown = [{"id": each.id, "detail": each.detail} for each in leftovers.unknown]
            typer.echo(json.dumps({"answered": answered, "unknown": unknown}, indent=2))
        else:
            for request, response in leftovers.answered:
                typer.echo(_told(request, response))
            for each in leftovers.unknown:
                typer.echo(_unknown(each))
    done = not leftovers.unknown and all(response.status is Status.DONE for _, response in leftovers.answered)
    return ExitCode.OK if done else ExitCode.FAILURE


def _warn(leftovers: Leftovers) -> None:
    """Tell what went wrong with requests that this process did not make itself."""
    from tunnel_relay.protocol.requests import Status

    for request, response in leftovers.answered:
        if response.status is not Status.DONE:
            typer.echo(f"sproxy: of an earlier run: {_told(request, response)}", err=True)
    for each in leftovers.unknown:
        typer.echo(f"sproxy: of an earlier run: {_unknown(each)}", err=True)


def _told(request: Request, response: Response) -> str:
    detail = f": {response.detail}" if response.detail else ""
    return f"request {request.id} to {request.target}: {_word(response.status)}{detail}"


def _unknown(unknown: UnknownOutcome) -> str:
    return f"request {unknown.id}: {unknown.detail}"


def _word(status: Status) -> str:
    return status.name.lower().replace("_", "-")


def report(request: Request, response: Response) -> dict[str, object]:
    """Return what JSON says of a request that was answered."""
    payload = bytes(response.payload)
    try:
        text, encoding = payload.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(payload).decode(), "base64"
    return {
        "id": request.id,
        "target": request.target,
        "status": _word(response.status),
        "detail": response.detail,
        "size": len(payload),
        "encoding": encoding,
        "payload": text,
    }


def exit_code(status: Status) -> ExitCode:
    """Return what to exit with after a response of that *status*."""
    from tunnel_relay.protocol.requests import Status

    match status:
        case Status.DONE:
            return ExitCode.OK
        case Status.NOT_ALLOWED:
            return ExitCode.NOT_PERMITTED
        case Status.NO_SUCH_TARGET | Status.UNREACHABLE | Status.REFUSED | Status.TIMED_OUT:
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.FAILURE
