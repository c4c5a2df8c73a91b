"""``sproxy`` as a program that ssh(1) can be told to run, with a token of alice."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from tests.support.relay_tokens import make_token

ROOT = Path(__file__).parent.parent.parent
BODY = "from session_proxy.cli.main import main; main()"


@attrs.frozen
class Command:
    """A program in *folder* that is `sproxy`, and what it says to get to the relay at *address*."""

    folder: Path
    address: str
    user: str = "alice"
    seconds: float = 600
    """For which the token holds."""

    @property
    def program(self) -> Path:
        file = self.folder / "sproxy"
        if not file.exists():
            python = shlex.join([sys.executable, "-c", BODY])
            file.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {python} "$@"\n')
            file.chmod(0o700)
        return file

    @property
    def options(self) -> list[str]:
        token = self.folder / f"{self.user}.token"
        token.write_text(make_token(self.user, tier="enterprise", seconds=self.seconds))
        token.chmod(0o600)
        return ["--endpoint", f"ws://{self.address}", "--token-file", str(token)]

    @property
    def proxy_command(self) -> str:
        """What ssh is told."""
        return shlex.join([str(self.program), "relay-ssh", "%r@%h", *self.options])

    async def run(
        self, *arguments: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end, with *arguments* and the options."""
        return await trio.run_process(
            [str(self.program), *arguments, *self.options],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environ,
        )
