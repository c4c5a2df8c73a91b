"""The suite for upstreams of kind ``ssm``, through a lab whose agent has the real one's pace.

AWS's agent sleeps 1 ms after each 1 024 bytes that it sends, so one session is slow and several are not. What
is measured is how far striped sessions get, and what AWS's own session-manager-plugin under ``ssh -D`` does
through the very same lab, where it is installed (on the path, or named by SESSION_MANAGER_PLUGIN).
"""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from benchmarks import contestants
from benchmarks.arena import Arena, Contestant, FailedError
from benchmarks.contestants import SPROXY, AbsentError
from benchmarks.measures import CONNECTS, IDLE, LATENCY, MIB, Figure, Figures, Measure, Scale
from benchmarks.processes import program
from benchmarks.tournament import Outcome, Row, play

STRIPES = (1, 2, 3, 4, 8)
QUICK_STRIPES = (1, 4)
ONE, PLUGIN = "1 session", "plugin"
# What a profile gets that says nothing about sessions.
SUBJECT = "4 sessions"
# The lab is up within a second; a busy machine may take longer to import it.
LAB_PATIENCE = 30.0
LAB_POLL = 0.05
# What AWS's plugin and AWS's agent did together, on loopback (docs/PROTOCOL.md says how).
REFERENCE_PAIR = 0.6
NOTE = (
    "Paced: the agent sends 1 KiB every 1.65 ms, as AWS's does. For scale: AWS's plugin with AWS's agent, "
    f"measured apart from this run, moved {REFERENCE_PAIR} MB/s either way."
)


@attrs.frozen
class Login:
    """How the lab's instances are logged in to, and on which port their sshd listens."""

    user: str
    key: str
    known_hosts: str
    port: int = 22


@attrs.frozen
class Lab:
    """A running lab: the environment for its AWS endpoints, and the ``ssm`` table of its profile."""

    env: dict[str, str]
    upstream: dict[str, object]
    instances: list[str]
    login: Login


@asynccontextmanager
async def open_lab(folder: Path) -> AsyncGenerator[Lab]:
    """Run ``sproxy lab --pace`` for the block."""
    world = folder / "world"
    async with program([*SPROXY, "lab", "--dir", str(world), "--pace"], log=folder / "lab.log"):
        await _wait_for_file(world / "ready.json")
        profile = tomllib.loads(await trio.Path(world / "profile.toml").read_text())
        lines = (await trio.Path(world / "env").read_text()).splitlines()
        env = {**os.environ, **dict(line.split("=", 1) for line in lines if "=" in line)}
        upstream = profile["upstreams"]["ssm"]
        yield Lab(env, upstream, upstream["instances"], Login(**upstream["ssh"]))


async def _wait_for_file(path: Path) -> None:
    for _ in range(int(LAB_PATIENCE / LAB_POLL)):
        if await trio.Path(path).exists():
            return
        await trio.sleep(LAB_POLL)
    raise FailedError(f"the lab was not ready within {LAB_PATIENCE:.0f} s")


@asynccontextmanager
async def plugin(arena: Arena, folder: Path, lab: Lab) -> AsyncGenerator[Contestant]:
    """Run ``ssh -D`` through AWS's session-manager-plugin."""
    binary = os.environ.get("SESSION_MANAGER_PLUGIN") or shutil.which("session-manager-plugin")
    if binary is None:
        raise AbsentError("session-manager-plugin is not installed")
    session = f"{binary} {lab.instances[0]} {lab.login.port}"
    command = f"{sys.executable} -m benchmarks.plugin_session {session}"
    login = contestants.Sshd(lab.login.port, lab.login.user, Path(lab.login.key), 0)
    async with contestants.ssh_dynamic(
        arena, folder, login, through=command, env=lab.env, name=PLUGIN
    ) as peer:
        yield peer


def stripes(contestant: Contestant) -> int:
    """Return how many sessions *contestant* has, by its name."""
    first = contestant.name.split()[0]
    return int(first) if first.isdigit() else 1


async def _striped_down(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    streams = stripes(contestant)
    # The probe makes the pool grow; what is timed then finds a session for every stream.
    probed = await arena.download(contestant, scale.probe * streams, streams, checked=True)
    size = int(max(scale.probe * streams / probed * scale.seconds, scale.probe * streams))
    return {"striped": size / await arena.download(contestant, size, streams) / 1e6}


async def _up(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    probed = await arena.upload(contestant, scale.probe, checked=True)
    size = int(max(scale.probe / probed * scale.seconds, scale.probe))
    before = contestant.usage()
    seconds = await arena.upload(contestant, size)
    return {"up": size / seconds / 1e6, "up-cpu": (contestant.usage().cpu - before.cpu) / (size / 1e9)}


DOWN = Measure(
    "as many streams down as sessions", (Figure("striped", "MB/s", more=True, digits=2),), _striped_down
)
UP = Measure(
    "one stream up", (Figure("up", "MB/s", more=True, digits=2), Figure("up-cpu", "CPU s/GB", digits=1)), _up
)


async def _many(arena: Arena, contestant: Contestant, scale: Scale) -> Figures:
    size = scale.streams * scale.probe // 32
    return {"many": size / await arena.download(contestant, size, scale.streams, checked=True) / 1e6}


async def ssm(arena: Arena, folder: Path, scale: Scale) -> Outcome:
    """Measure one and several paced sessions, and AWS's plugin beside them."""
    quick = scale.rounds == 1
    scale = attrs.evolve(scale, probe=MIB // 8 if quick else MIB, seconds=1 if quick else 4)
    scale = attrs.evolve(scale, connections=64 if quick else 320, pings=50 if quick else 300)
    absent: dict[str, str] = {}
    failed: tuple[str, ...] = ()
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(open_lab(folder))
        ours = [
            await stack.enter_async_context(_striped(arena, folder, lab, count))
            for count in (QUICK_STRIPES if quick else STRIPES)
        ]
        peers: list[Contestant] = []
        try:
            peers.append(await stack.enter_async_context(plugin(arena, folder, lab)))
        except AbsentError as exc:
            absent[PLUGIN] = str(exc)
        except FailedError as exc:
            failed = (str(exc),)
        rows, failures = await play(arena, [*ours, *peers], [DOWN], scale)
        pair = [*(one for one in ours if one.name == SUBJECT), *peers]
        many = Measure(f"{scale.streams} streams down", (Figure("many", "MB/s", more=True, digits=2),), _many)
        more, failures_of_pair = await play(arena, pair, [IDLE, UP, many, CONNECTS, LATENCY], scale)
    return Outcome(
        suite="ssm",
        subject=SUBJECT,
        peers=tuple(peer.name for peer in peers),
        rows=(*_per_stripe(rows), *more),
        absent=absent,
        failures=(*failed, *failures, *failures_of_pair),
        notes=(NOTE,),
    )


def _striped(arena: Arena, folder: Path, lab: Lab, count: int) -> contestants.Start:
    profile = {"default": "ssm", "upstreams": {"ssm": {**lab.upstream, "sessions": count}}}
    name = ONE if count == 1 else f"{count} sessions"
    return contestants.sproxy(arena, folder, profile, name=name, env=lab.env)


def _per_stripe(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Add, to the row of what N sessions moved, how much that is of N times one session, and of N plugins."""
    (row,) = rows
    units = [(f"of N times {name}", row.values[name]) for name in (ONE, PLUGIN) if row.values.get(name)]
    return row, *(
        Row(row.measure, Figure("share", unit, more=True, digits=2), _shares(row, one)) for unit, one in units
    )


def _shares(row: Row, ones: list[float]) -> dict[str, list[float]]:
    return {
        name: [
            moved / one / stripes(Contestant(name, None)) for moved, one in zip(values, ones, strict=False)
        ]
        for name, values in row.values.items()
    }
