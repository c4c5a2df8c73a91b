"""The suites: who competes in what, over which way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import attrs

from benchmarks import contestants
from benchmarks.arena import Arena, Contestant, FailedError
from benchmarks.contestants import NO_PROXY, AbsentError, Start
from benchmarks.measures import CONNECTS, IDLE, LATENCY, Scale, bulk
from benchmarks.tournament import Outcome, play

Suite = Callable[[Arena, Path, Scale], Awaitable[Outcome]]


async def direct(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure the front door and the relay alone: everything goes out directly."""
    measures = (IDLE, *bulk(streams=scale.streams), CONNECTS, LATENCY)
    async with AsyncExitStack() as stack:
        starts: dict[str, Callable[[], Start]] = {
            "sproxy": partial(contestants.sproxy, arena, folder, {"default": "direct"}),
            "microsocks": partial(contestants.microsocks, arena, folder),
            "pproxy": partial(contestants.pproxy, arena, folder),
        }
        try:
            sshd = await stack.enter_async_context(contestants.open_sshd(folder))
            starts["ssh -D"] = partial(contestants.ssh_dynamic, arena, folder, sshd, both_ends=True)
        except AbsentError:
            pass
        present, absent, failed = await enter(stack, starts)
        rows, failures = await play(arena, [*present, NO_PROXY], measures, scale)
    return Outcome(
        suite="direct",
        subject="sproxy",
        peers=_peers(present),
        rows=rows,
        absent=absent,
        failures=(*failed, *failures),
    )


async def ssh(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure an upstream of kind ``ssh`` against other clients of the same OpenSSH server."""
    scale = attrs.evolve(scale, streams=20, most=2048 << 20)
    measures = (IDLE, *bulk(streams=scale.streams), CONNECTS, LATENCY)
    async with AsyncExitStack() as stack:
        try:
            sshd = await stack.enter_async_context(contestants.open_sshd(folder))
        except AbsentError as exc:
            return Outcome(suite="ssh", subject="sproxy", peers=(), rows=(), absent={"sshd": str(exc)})
        profile = {"default": "bastion", "upstreams": {"bastion": ssh_upstream(sshd, folder)}}
        present, absent, failed = await enter(
            stack,
            {
                "sproxy": partial(contestants.sproxy, arena, folder, profile),
                "ssh -D": partial(contestants.ssh_dynamic, arena, folder, sshd),
                "asyncssh": partial(contestants.asyncssh, arena, folder, sshd),
            },
        )
        rows, failures = await play(arena, present, measures, scale)
    return Outcome(
        suite="ssh",
        subject="sproxy",
        peers=_peers(present),
        rows=rows,
        absent=absent,
        failures=(*failed, *failures),
        notes=(f"All with {contestants.CIPHER}; memory and CPU are the client's, not the server's.",),
    )


def ssh_upstream(sshd: contestants.Sshd, folder: Path) -> dict[str, object]:
    """Return the table of an upstream of kind ``ssh`` that ends in *sshd*."""
    login = {"user": sshd.user, "key": str(sshd.key), "known_hosts": str(folder / "known_hosts")}
    return {"kind": "ssh", "address": f"127.0.0.1:{sshd.port}", "ssh": login}


async def enter(
    stack: AsyncExitStack, starts: dict[str, Callable[[], Start]]
) -> tuple[list[Contestant], dict[str, str], tuple[str, ...]]:
    """Start whoever is installed; returns them, and why the others are absent or failed."""
    present: list[Contestant] = []
    absent: dict[str, str] = {}
    failed: list[str] = []
    for name, start in starts.items():
        try:
            present.append(await stack.enter_async_context(start()))
        except AbsentError as exc:
            absent[name] = str(exc)
        except FailedError as exc:
            failed.append(str(exc))
    return present, absent, tuple(failed)


def _peers(present: Sequence[Contestant]) -> tuple[str, ...]:
    return tuple(contestant.name for contestant in present if contestant.name != "sproxy")
