"""A real ssh-agent on a socket of a test's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs


@attrs.frozen
class SshAgent:
    """A running agent, and its socket."""

    socket: Path

    def add(self, *arguments: str) -> None:
        """Run ssh-add."""
        self._run("-q", *arguments)

    def list(self) -> list[str]:
        """Return the public keys that it holds."""
        output = self._run("-L", check=False)
        return [line for line in output.splitlines() if not line.startswith("The agent has no")]

    def _run(self, *arguments: str, check: bool = True) -> str:
        environ = {**os.environ, "SSH_AUTH_SOCK": str(self.socket)}
        done = subprocess.run(
            ["ssh-add", *arguments], check=check, env=environ, capture_output=True, text=True
        )
        return done.stdout


@contextmanager
def start_ssh_agent(directory: Path) -> Generator[SshAgent]:
    """Run an agent whose socket is in *directory*, the name of which must not be long."""
    path = directory / "a"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield SshAgent(path)
    finally:
        process.kill()
        process.communicate()
