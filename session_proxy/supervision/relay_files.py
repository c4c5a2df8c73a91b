"""Files that a relay server reads again when they change: revoked tokens, and its certificate."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

T = TypeVar("T")

# Seconds between two looks.
LOOK = 2.0


async def follow(
    paths: Sequence[Path],
    load: Callable[[], T],
    take: Callable[[T], None],
    fail: Callable[[str], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hand what *load* returns to *take*, now and whenever one of *paths* has changed, until cancelled.

    Files are read in a thread. What goes wrong is told to *fail*, once per change; what was taken before holds on.

    Raises:
      OSError: a file cannot be read the first time.
      ValueError: it makes no sense the first time.

    """
    seen = await trio.to_thread.run_sync(_stamp, paths)
    take(await trio.to_thread.run_sync(load))
    task_status.started()
    while True:
        await trio.sleep(LOOK)
        now = await trio.to_thread.run_sync(_stamp, paths)
        if now == seen:
            continue
        seen = now
        try:
            loaded = await trio.to_thread.run_sync(load)
        except (OSError, ValueError) as exc:
            fail(f"what was read before holds on: {_told(exc)}")
        else:
            take(loaded)


def _stamp(paths: Sequence[Path]) -> list[tuple[int, ...]]:
    """Return what tells one version of the files from the next."""
    stamps: list[tuple[int, ...]] = []
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116  # its name may be a link that is set anew
        except OSError:
            stamps.append(())
        else:
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return stamps


def read_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return how to prove who we are with what is in these files: by TLS 1.3 only.

    Raises:
      OSError: a file cannot be read (`ssl.SSLError` where it makes no sense).

    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Without this, nobody could tell a passphrase from a hang.
    context.load_cert_chain(certificate, key, password=_no_passphrase)
    return context


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase; write it without one")


def _told(exc: OSError | ValueError) -> str:
    if isinstance(exc, ssl.SSLError):
        return f"no certificate and key that fit: {exc.reason or exc}"
    if isinstance(exc, OSError) and exc.filename is not None:
        return f"{exc.filename}: {(exc.strerror or str(exc)).lower()}"
    return str(exc)
