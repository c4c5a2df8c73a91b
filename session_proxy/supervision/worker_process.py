"""A process that is kept running: it is started again when it ends, until all is to end.

It lives no longer than whoever has started it: its stdin is a pipe on which nothing comes, and that ends with us. On
its stdout it says, in a line of JSON, that it is ready, or why it cannot be.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Sequence

import attrs
import cattrs
import trio

from session_proxy.errors import ExitCode, WorkerStartError
from session_proxy.observability.logging import Log
from tunnel_relay.background import open_background

# Seconds until it is started again: for the first end in a row, the second, and so on.
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

# One that has been ready for so many seconds has not ended in a row.
PROVEN = 60.0

# Seconds that it may take to end when it is told to end at once, and to have read what it said at last.
PARTING = 5.0
LAST_WORDS = 1.0


@attrs.frozen(kw_only=True)
class Report:
    """What a worker says on its stdout: that it is *ready*; else its *problems*, and what it exits with."""

    ready: bool = False
    problems: list[str] = attrs.field(factory=list[str])
    exit_code: int = ExitCode.FAILURE

    def encode(self) -> str:
        """Return it as a line."""
        return json.dumps(attrs.asdict(self)) + "\n"


@attrs.define(eq=False)
class WorkerProcess:
    """See the module.

    Attributes:
      number: What it is called in the log.
      argv: The program.
      descriptors: What it inherits, beside stderr.
      log: Where it is told that it has ended.
      pid: Its process, if there is one.
      restarts: How often it was started again.
      settled: Set when it is ready for the first time, or cannot be.
      failure: Why it cannot be.
      over: Set when it is not kept running any more.

    """

    number: int
    argv: Sequence[str]
    descriptors: Sequence[int]
    log: Log
    pid: int | None = attrs.field(default=None, init=False)
    restarts: int = attrs.field(default=0, init=False)
    settled: trio.Event = attrs.field(factory=trio.Event, init=False)
    failure: WorkerStartError | None = attrs.field(default=None, init=False)
    over: trio.Event = attrs.field(factory=trio.Event, init=False)
    _process: trio.Process | None = attrs.field(default=None, init=False)
    _ready_at: float | None = attrs.field(default=None, init=False)
    _problems: list[str] = attrs.field(factory=list[str], init=False)

    async def run(self, stop: trio.Event) -> None:
        """Keep it running until *stop* is set; then ask it to drain, and return when it has.

        Where it does not get ready the first time, that is its `failure`. Cancelled, it is ended at once.
        """
        try:
            await self._keep(stop)
        finally:
            self.settled.set()
            self.over.set()

    def replace(self) -> None:
        """Have another process in its place, at once."""
        if self._process is not None:
            self._process.kill()

    async def _keep(self, stop: trio.Event) -> None:
        in_a_row = 0
        while not stop.is_set():
            code = await self._live(stop)
            if stop.is_set():
                return
            why = "; ".join(self._problems) or describe(code)
            if not self.settled.is_set():
                lines = "\n".join(self._problems) or f"worker {self.number} {why} before it was ready"
                self.failure = WorkerStartError(lines, _exit_code(code))
                return
            lived = 0.0 if self._ready_at is None else trio.current_time() - self._ready_at
            in_a_row = 0 if lived >= PROVEN else in_a_row
            pause = PAUSES[min(in_a_row, len(PAUSES) - 1)]
            in_a_row += 1
            self.log.error("worker ended", worker=self.number, message=why, again_in=pause)
            with trio.move_on_after(pause):
                await stop.wait()
            self.restarts += 1

    async def _live(self, stop: trio.Event) -> int:
        """Run it once; return its exit status."""
        self._ready_at, self._problems = None, []
        try:
            process = self._process = await trio.lowlevel.open_process(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=self.descriptors,
                # What a terminal says goes to us, and we pass it on.
                start_new_session=True,
            )
        except OSError as exc:
            # There may be too many processes, or too little memory.
            self._problems = [
                f"worker {self.number} has got no process: {(exc.strerror or str(exc)).lower()}"
            ]
            return ExitCode.FAILURE
        self.pid = process.pid
        read = trio.Event()

        async def read_reports() -> None:
            assert process.stdout is not None
            said = b""
            async for data in process.stdout:
                *lines, said = (said + data).split(b"\n")
                for line in lines:
                    self._heed(line)
            read.set()

        async def pass_on() -> None:
            await stop.wait()
            process.terminate()

        try:
            async with open_background() as nursery:
                nursery.start_soon(read_reports)
                nursery.start_soon(pass_on)
                code = await process.wait()
                with trio.move_on_after(LAST_WORDS):
                    await read.wait()
                return code
        finally:
            self.pid = self._process = None
            await _end(process)

    def _heed(self, line: bytes) -> None:
        report = cattrs.Converter().structure(json.loads(line), Report)
        self._problems = report.problems
        if report.ready:
            self._ready_at = trio.current_time()
            self.settled.set()


def describe(code: int) -> str:
    """Return how a process has ended whose exit status is *code*, negative where that was a signal."""
    if code >= 0:
        return f"has ended with exit status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _exit_code(code: int) -> ExitCode:
    try:
        return ExitCode(code or ExitCode.FAILURE)
    except ValueError:
        return ExitCode.FAILURE


async def _end(process: trio.Process) -> None:
    """See to it that *process* has ended, and nothing of it is left."""
    with trio.CancelScope(shield=True):
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
        with trio.move_on_after(PARTING):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
