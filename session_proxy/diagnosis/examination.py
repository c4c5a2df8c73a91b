"""Examine all that a file names: each connection goes through its stages, all of them at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs
import trio

from session_proxy.diagnosis.course import Setting, make_setting
from session_proxy.diagnosis.report import Diagnosis
from session_proxy.errors import ProfileError
from session_proxy.outbound.transport import Services
from session_proxy.profile.awg_model import SERVER, AwgClient, AwgServer
from session_proxy.profile.model import (
    AwgUpstream,
    Profile,
    RelayUpstream,
    SshUpstream,
    SsmPortUpstream,
    SsmUpstream,
    Upstream,
)
from session_proxy.profile.relay_model import RelayAgent, RelayServer
from session_proxy.target import Target
from tunnel_relay.category import Category
from tunnel_relay.stages import Outcome, Stage, Step, split_advice

Loaded = Profile | AwgServer | AwgClient | RelayServer | RelayAgent

# More would get in each other's way, and be taken for a flood.
MOST_AT_ONCE = 8


@attrs.frozen(kw_only=True)
class Case:
    """A connection to be examined.

    Attributes:
      name: What the file calls it.
      kind: Its kind.
      via: By which of several ways; "" where there is one.
      steps: Its stages.
      work: Makes them, but for the first.

    """

    name: str
    kind: str
    via: str = ""
    steps: Sequence[Step]
    work: Callable[[Setting], Awaitable[None]]


def cases_of(loaded: Loaded, target: Target | None, carried: Mapping[str, str] | None = None) -> list[Case]:
    """Return what is to be examined of a file, through which *target* is to be reached.

    What a running sproxy says of the upstreams that work there is *carried*, by their names. What only some kinds need
    takes long to import, so that is done here.
    """
    match loaded:
        case Profile():
            return [
                case
                for name, upstream in loaded.upstreams.items()
                for case in _cases_of_upstream(name, upstream, target, carried or {})
            ]
        case AwgClient():
            return _cases_of_upstream(SERVER, loaded.upstream(), target, carried or {})
        case RelayAgent():
            from session_proxy.diagnosis import relay

            return [
                Case(
                    name=loaded.name,
                    kind="agent",
                    via=_told(endpoint.url, loaded.endpoints),
                    steps=relay.AGENT_STEPS,
                    work=partial(relay.examine_agent, agent=loaded, endpoint=endpoint),
                )
                for endpoint in loaded.endpoints
            ]
        case AwgServer() | RelayServer():
            from session_proxy.diagnosis import servers

            kind = "awg-server" if isinstance(loaded, AwgServer) else "relay-server"
            work = partial(servers.examine, server=loaded)
            return [Case(name=loaded.name, kind=kind, steps=servers.STEPS, work=work)]


def _cases_of_upstream(
    name: str, upstream: Upstream, target: Target | None, carried: Mapping[str, str]
) -> list[Case]:
    match upstream:
        case SshUpstream():
            from session_proxy.diagnosis import ssh

            work = partial(ssh.examine, name=name, upstream=upstream, target=target)
            return [Case(name=name, kind=upstream.kind, steps=ssh.STEPS, work=work)]
        case AwgUpstream():
            from session_proxy.diagnosis import awg

            work = partial(
                awg.examine, name=name, upstream=upstream, target=target, carried=carried.get(name, "")
            )
            return [Case(name=name, kind=upstream.kind, steps=awg.STEPS, work=work)]
        case SsmUpstream() | SsmPortUpstream():
            from session_proxy.diagnosis import ssm

            def work_for(entry: str) -> Callable[[Setting], Awaitable[None]]:
                if isinstance(upstream, SsmUpstream):
                    return partial(ssm.examine_ssm, name=name, upstream=upstream, entry=entry, target=target)
                return partial(ssm.examine_port, name=name, upstream=upstream, entry=entry, target=target)

            steps = ssm.STEPS if isinstance(upstream, SsmUpstream) else ssm.PORT_STEPS
            return [
                Case(name=name, kind=upstream.kind, via=entry, steps=steps, work=work_for(entry))
                for entry in upstream.instances
            ]
        case RelayUpstream():
            from session_proxy.diagnosis import relay

            return [
                Case(
                    name=name,
                    kind=upstream.kind,
                    via=_told(endpoint.url, upstream.endpoints),
                    steps=relay.STEPS,
                    work=partial(
                        relay.examine, name=name, upstream=upstream, endpoint=endpoint, target=target
                    ),
                )
                for endpoint in upstream.endpoints
            ]


def _told(text: str, all_of_them: Sequence[object]) -> str:
    return text if len(all_of_them) > 1 else ""


async def examine(
    cases: Sequence[Case],
    services: Services,
    base: Path,
    *,
    warnings: Sequence[str] = (),
    tell: Callable[[Diagnosis], None],
) -> list[Diagnosis]:
    """Return what was found about the *cases* of a file in the folder *base*, in their order; *tell* of each at once.

    The *warnings* of the file go to the upstreams that they name.
    """
    limiter = trio.CapacityLimiter(MOST_AT_ONCE)
    found: dict[int, Diagnosis] = {}

    async def examine_one(position: int, case: Case) -> None:
        async with limiter:
            setting = make_setting(case.steps, services, base)
            course = setting.course

            async def work() -> None:
                with course.stage(Step.CONFIGURATION) as notes:
                    for warning in warnings_about(case.name, warnings):
                        notes.warn(*split_advice(warning))
                await case.work(setting)

            stages = await course.run(work)
        found[position] = Diagnosis(name=case.name, kind=case.kind, via=case.via, stages=stages)
        tell(found[position])

    async with trio.open_nursery() as nursery:
        for position, case in enumerate(cases):
            nursery.start_soon(examine_one, position, case)
    return [found[position] for position in range(len(cases))]


def warnings_about(upstream: str, warnings: Sequence[str]) -> list[str]:
    """Return those of a file's *warnings* that are about an *upstream*, without the file's name."""
    prefix = f"upstreams.{upstream}."
    return [warning[warning.index(prefix) :] for warning in warnings if prefix in warning]


def file_diagnosis(file: Path | None, seconds: float, warnings: Sequence[str], found: str) -> Diagnosis:
    """Return what was found about a *file* that can be used."""
    about = [split_advice(warning) for warning in warnings]
    stage = Stage(
        step=Step.CONFIGURATION,
        outcome=Outcome.WARNING if about else Outcome.OK,
        seconds=seconds,
        found=found,
        cause="; also, ".join(cause for cause, _ in about),
        fix="; ".join(fix for _, fix in about if fix),
    )
    return Diagnosis(name=str(file or "profile"), kind="file", stages=(stage,))


def refused_file(exc: ProfileError, seconds: float) -> Diagnosis:
    """Return what was found about a file that cannot be used: a stage for each problem."""
    stages = tuple(
        Stage(
            step=Step.CONFIGURATION,
            outcome=Outcome.FAILED,
            seconds=seconds,
            cause=f"{problem.path}: {problem.message}" if problem.path else problem.message,
            fix=problem.fix,
            category=Category.CONFIGURATION,
        )
        for problem in exc.problems
    )
    return Diagnosis(name=str(exc.file or "profile"), kind="file", stages=stages)
