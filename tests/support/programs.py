"""Run our own command as a user does, in a process of its own, and end it again.

with start_lab(folder) as lab, start_sproxy(lab.profile, env=lab.env) as proxy:
    ...  # proxy.address, proxy.admin, lab.target("ssm").http
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import attrs
import cattrs

from tests.support.folders import runtime_folder

T = TypeVar("T")

SPROXY = (sys.executable, "-c", "from session_proxy.cli.main import main; main()")
# Starting Python and importing boto3 takes a second, or several on a machine that tests with all its cores.
START = 30.0
END = 20.0
POLL = 0.02


@attrs.define(eq=False)
class Program:
    """A running ``sproxy`` command; *log* is the file with what it wrote to stderr."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, find: Callable[[], T | None]) -> T:
        """Return what *find* finds, as soon as it finds something; fails if the program ends before."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            found = find()
            if found is not None:
                return found
            # Waiting for the end is the pause between two looks.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.process.wait(POLL)
                raise AssertionError(f"it ended with {code}:\n{self.text()}")
        raise AssertionError(f"it did not get so far:\n{self.text()}")

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send *signum* and return the exit code."""
        self.process.send_signal(signum)
        return self.process.wait(END)


@attrs.define(eq=False)
class Sproxy(Program):
    """A running ``sproxy run`` that logs JSON."""

    profile: Path
    address: str = ""
    admin: str = ""

    def events(self) -> list[dict[str, object]]:
        """Return its log so far, a dictionary per line."""
        lines = self.text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def find(self, event: str, **fields: object) -> dict[str, object] | None:
        """Return the last line logged about *event* that has these *fields*; one that is None is to be missing."""
        for line in reversed(self.events()):
            if line.get("event") == event and all(line.get(name) == value for name, value in fields.items()):
                return line
        return None


@attrs.frozen
class Pair:
    """A transport's targets, as ``HOST:PORT``."""

    http: str
    echo: str


@attrs.frozen(kw_only=True)
class Ready:
    """What ``ready.json`` says."""

    listen: str
    admin: str
    targets: dict[str, Pair]
    ssm_endpoint: str
    instances: list[str]


@attrs.define(eq=False)
class Lab(Program):
    """A running ``sproxy lab``, and what its ready.json says."""

    folder: Path
    env: dict[str, str]
    ready: Ready

    @property
    def profile(self) -> Path:
        return self.folder / "profile.toml"

    def target(self, transport: str) -> Pair:
        return self.ready.targets[transport]

    @property
    def listen(self) -> str:
        return self.ready.listen


NOT_READY = Ready(listen="", admin="", targets={}, ssm_endpoint="", instances=[])


@contextmanager
def running(
    argv: Sequence[str], log: Path, env: Mapping[str, str] | None, within: Sequence[str] = ()
) -> Generator[subprocess.Popen[bytes]]:
    """Run a command of ours for the block; *within* is the command that runs it somewhere else."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*within, *SPROXY, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env or os.environ),
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def start_sproxy(profile: Path, *options: str, env: Mapping[str, str] | None = None) -> Generator[Sproxy]:
    """Run ``sproxy run PROFILE`` until the block ends; it is ready when the block begins."""
    log = profile.with_name(f"{profile.stem}.log")
    # A runtime folder of its own: several tests may run a profile of the same name.
    environ = {**(env or os.environ), "XDG_RUNTIME_DIR": runtime_folder()}
    argv = ["run", str(profile), "--log-format", "json", *options]
    with running(argv, log, environ) as process:
        proxy = Sproxy(process, log, profile)
        ready = proxy.wait_for(lambda: proxy.find("ready"))
        proxy.address, proxy.admin = _first(ready["listen"]), _first(ready["admin"])
        yield proxy


def _first(value: object) -> str:
    return str(value).split(",")[0]


@contextmanager
def start_lab(folder: Path, *options: str) -> Generator[Lab]:
    """Run ``sproxy lab --dir FOLDER`` until the block ends; it is ready when the block begins."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "lab.log"
    with running(["lab", "--dir", str(folder), *options], log, None) as process:
        lab = Lab(process, log, folder, {}, NOT_READY)

        def find_ready() -> Ready | None:
            # It is there before it is whole, unless it is moved into its place.
            with contextlib.suppress(OSError, ValueError):
                return cattrs.structure(json.loads((folder / "ready.json").read_bytes()), Ready)
            return None

        lab.ready = lab.wait_for(find_ready)
        lines = (folder / "env").read_text(encoding="utf-8").splitlines()
        lab.env = {**os.environ, **dict(line.split("=", 1) for line in lines if "=" in line)}
        yield lab


def run_sproxy(*argv: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    return subprocess.run(
        [*SPROXY, *argv],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=START,
        env=dict(env or os.environ),
    )
