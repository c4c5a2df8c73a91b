"""``sproxy explain``: which route takes a destination, and why."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from pathlib import Path
from typing import Annotated

import attrs
import typer

from session_proxy.cli.options import JsonOption, wrong_target
from session_proxy.errors import ExitCode, InvalidTargetError, ProfileError
from session_proxy.policy.explain import Explanation
from session_proxy.policy.explain import explain as explain_target
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import Address
from session_proxy.profile.loading import load_profile
from session_proxy.target import Target

EXIT_CODES = {"rule": 0, "default": 3, "reject": 4}

ProfileArgument = Annotated[Path, typer.Argument(readable=False, metavar="PROFILE", help="The profile.")]
TargetArgument = Annotated[str, typer.Argument(metavar="HOST:PORT", help="The destination.")]


def explain(profile: ProfileArgument, target: TargetArgument, as_json: JsonOption = False) -> None:
    """Show which route takes HOST:PORT, and why: exit 0 for a route, 3 for the default, 4 for reject."""
    try:
        destination = Target.parse(target)
    except InvalidTargetError as exc:
        raise wrong_target(exc, "HOST:PORT") from exc
    try:
        loaded = load_profile(profile, environ=os.environ)
    except ProfileError as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(ExitCode.CONFIGURATION) from exc
    table = RouteTable.build(loaded.routes, loaded.default)
    addresses = _look_up(destination.host) if table.wants_addresses(destination) else []
    explanation = explain_target(loaded.routes, loaded.default, destination, addresses)
    typer.echo(json.dumps(_report(explanation), indent=2) if as_json else _text(explanation))
    raise typer.Exit(EXIT_CODES[explanation.outcome])


def _look_up(name: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        # Then no CIDR can match it, and the explanation says so.
        return []
    # A scoped address ("fe80::1%eth0") compares without its scope.
    texts = dict.fromkeys(str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found)
    return [ipaddress.ip_address(text) for text in texts]


def _report(explanation: Explanation) -> dict[str, object]:
    report = attrs.asdict(explanation)
    report["target"] = str(explanation.target)
    report["outcome"] = explanation.outcome
    return report


def _text(explanation: Explanation) -> str:
    decision = explanation.decision
    lines = [f"{explanation.target}"]
    if explanation.addresses:
        lines.append(f"  resolves here to {', '.join(explanation.addresses)}")
    for considered in explanation.considered:
        mark = "+" if considered.matched else "-"
        lines.append(f"  {mark} {considered.rule}: {considered.why}")
    if explanation.not_considered:
        lines.append(f"    {explanation.not_considered} later routes were not considered")
    lines.append(f"  {decision.rule} decides: {', then '.join(decision.upstreams)}")
    lines += [f"  {item.upstream}: the name is resolved {item.where}" for item in explanation.resolution]
    return "\n".join(lines)
