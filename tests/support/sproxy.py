"""Run ``sproxy`` as a user does: a process, its stderr read line by line, waited for by what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.support.folders import runtime_folder

PROGRAM = str(Path(sys.executable).with_name("sproxy"))

# Far more than a start takes, so that a slow machine fails no test.
PATIENCE = 30.0


def clean_environ(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which *home* holds everything that sproxy reads and writes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SPROXY_", "AWS_", "XDG_", "LOG_"))
    }
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": runtime_folder(), **more}


@attrs.define(eq=False)
class Sproxy:
    """A running ``sproxy run``; *lines* is what it has logged so far, in JSON."""

    process: trio.Process
    environ: Mapping[str, str]
    lines: list[dict[str, object]] = attrs.field(factory=list[dict[str, object]])
    plain: list[str] = attrs.field(factory=list[str])
    _news: trio.Condition = attrs.field(factory=trio.Condition)
    _ended: bool = False

    async def wait_for(self, event: str, since: int = 0, **fields: object) -> dict[str, object]:
        """Return the first line after *since* others with that event and those fields, waiting for it."""
        async with self._news:
            while True:
                for line in self.lines[since:]:
                    if line["event"] == event and fields.items() <= line.items():
                        return line
                assert not self._ended, f"sproxy ended without {event!r}: {self.lines} {self.plain}"
                await self._news.wait()

    async def read(self) -> None:
        """Read stderr until the process closes it."""
        assert self.process.stderr is not None
        buffer = b""
        async for chunk in self.process.stderr:
            *lines, buffer = (buffer + chunk).split(b"\n")
            async with self._news:
                for line in lines:
                    if line.startswith(b"{"):
                        self.lines.append(json.loads(line))
                    else:
                        self.plain.append(line.decode())
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()

    def send_signal(self, signum: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(signum)

    async def wait(self) -> int:
        """Return the exit code, when there is one."""
        return await self.process.wait()


@asynccontextmanager
async def open_sproxy(
    *arguments: str, environ: Mapping[str, str], cwd: Path | None = None
) -> AsyncGenerator[Sproxy]:
    """Start ``sproxy run`` with *arguments*, and kill it in the end if it is still there.

    The whole block has `PATIENCE` seconds.
    """
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(
            [PROGRAM, "run", "--log-format", "json", *arguments], stderr=subprocess.PIPE, env=environ, cwd=cwd
        )
        sproxy = Sproxy(process, environ)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sproxy.read)
                yield sproxy
                nursery.cancel_scope.cancel()
        finally:
            await end(process)


async def end(process: trio.Process) -> None:
    """Kill *process* unless it has ended, and release what belongs to it."""
    if process.returncode is None:
        process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()
        if process.stderr is not None:
            await process.stderr.aclose()


async def run_sproxy(
    *arguments: str, environ: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``sproxy`` with *arguments* to its end, and return what it said."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [PROGRAM, *arguments], capture_stdout=True, capture_stderr=True, check=False, env=environ, cwd=cwd
        )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
