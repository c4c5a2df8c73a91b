"""Starting programs for a benchmark, and reading from /proc what they used."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

# How long a program may take to exit after SIGTERM before it is killed.
GRACE = 3.0
_TICK = 1 / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a loopback port that is free now; programs that cannot pick their own are given it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def program(
    argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
) -> AsyncGenerator[trio.Process]:
    """Run *argv* for the block, its output in *log*; terminate it afterwards, by force if need be."""
    with log.open("ab") as output:
        process = await trio.lowlevel.open_process(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
        )
        try:
            yield process
        finally:
            await _end(process)


@asynccontextmanager
async def conversation(argv: Sequence[str]) -> AsyncGenerator[trio.Process]:
    """Run *argv* for the block with pipes at its standard input and output."""
    process = await trio.lowlevel.open_process(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.terminate()
        with trio.move_on_after(GRACE) as grace:
            await process.wait()
        if grace.cancelled_caught:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@attrs.frozen
class Usage:
    """What a family of processes has used: CPU seconds so far, and bytes of memory now."""

    cpu: float
    memory: int

    @classmethod
    def of(cls, roots: Iterable[int]) -> Usage:
        """Return what *roots* and all their descendants use.

        Memory is the proportional set size where /proc tells it, else the resident one.
        """
        family = _family(roots)
        return cls(sum(_cpu(pid) for pid in family), sum(_memory(pid) for pid in family))


def is_alive(pid: int) -> bool:
    """Return whether *pid* runs: it has not ended, waited for or not."""
    return _stat(pid)[:1] not in ([], ["Z"])


def _family(roots: Iterable[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    family: set[int] = set()
    pending = list(roots)
    while pending:
        pid = pending.pop()
        family.add(pid)
        pending += children.get(pid, [])
    return family


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (proc(5): field 3), or none if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _cpu(pid: int) -> float:
    # proc(5): utime, stime, cutime, cstime are fields 14 to 17.
    return sum(int(field) for field in _stat(pid)[11:15]) * _TICK


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
