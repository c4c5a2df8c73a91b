"""curl on its way, at a pace that leaves time for accidents."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.support.awg_tunnel import PATIENCE
from tests.support.curl import OK

MB = 1_000_000


@attrs.define(eq=False)
class Download:
    """curl on its way, at a pace that leaves time for accidents."""

    process: subprocess.Popen[bytes]
    file: Path

    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def wait_for_more(self, patience: float = PATIENCE) -> float:
        """Wait until more has arrived than now, and return the seconds that took."""
        before, began = self.size(), time.monotonic()
        while self.size() == before:
            waited = time.monotonic() - began
            assert waited < patience, f"nothing came for {waited:.1f} s after {before} bytes"
            assert self.process.poll() is None, f"curl ended with {self.process.returncode}"
            pause(0.01)
        return time.monotonic() - began

    def wait_for_stall(self) -> None:
        """Wait until what was buffered on the way has come, and nothing more does."""
        deadline = time.monotonic() + PATIENCE
        before = -1
        while (size := self.size()) != before:
            assert time.monotonic() < deadline, "it goes on"
            before = size
            pause(1.0)

    def wait_for(self, size: int, patience: float = PATIENCE) -> None:
        """Wait until so much has arrived; there must be no longer pause than *patience*."""
        while self.size() < size:
            self.wait_for_more(patience)

    def digest(self, patience: float = PATIENCE * 2) -> str:
        """Wait for the end, and return the digest of what arrived."""
        assert self.process.wait(patience) == OK
        with self.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def pause(seconds: float) -> None:
    """Let the world go on: what is waited for happens in other programs, or must not happen at all."""
    time.sleep(seconds)  # noqa: TID251


@contextmanager
def downloading(
    proxy: str, url: str, folder: Path, *, rate: str = "4M", within: tuple[str, ...] = ()
) -> Generator[Download]:
    """Fetch *url* for the block; well under way when it begins."""
    file = folder / "arrived"
    argv = [*within, "curl", "-q", "-sS", "--limit-rate", rate, "-x", proxy, "-o", str(file), url]
    with subprocess.Popen(argv) as process:
        try:
            download = Download(process, file)
            while download.size() < MB:
                download.wait_for_more()
            yield download
        finally:
            process.kill()
