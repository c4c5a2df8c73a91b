"""The Unix socket on which a running service takes commands from whoever runs it, and nobody else.

Its folder has mode 0700 and the socket 0600. A socket that nobody listens on any more is replaced; one that
somebody does is an error that names the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import sys
from collections.abc import Generator
from pathlib import Path

import trio

from session_proxy.errors import ListenError, NameTakenError

# More callers than this at once are turned away; they are people and scripts, or the workers of a relay (64 at most).
BACKLOG = 64

# unix(7): sun_path has 108 bytes with its final NUL; it has 104 on macOS.
MAX_PATH = 103

# <sys/un.h> on macOS; the socket module does not name them.
SOL_LOCAL = 0
LOCAL_PEERPID = 2


@contextlib.contextmanager
def open_control_socket(path: Path) -> Generator[trio.SocketListener]:
    """Listen on *path* for the length of the block; the socket file is gone afterwards.

    Raises:
      NameTakenError: another process listens there.
      ListenError: the path is too long, or the folder is somebody else's.
      OSError: the folder or the socket cannot be made.

    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise ListenError(
            f"{path}: a socket's path has at most {MAX_PATH} bytes; set XDG_RUNTIME_DIR to a shorter one"
        )
    _make_private_folder(path.parent)
    with _locked(path.parent):
        if (owner := find_listener(path)) is not None:
            raise NameTakenError(path.stem, owner)
        path.unlink(missing_ok=True)
        sock = _bind(path)
        identity = _identity(path)
    with contextlib.closing(sock):
        try:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        finally:
            # Somebody may have put another socket there meanwhile.
            if _identity(path) == identity:
                path.unlink(missing_ok=True)


def find_listener(path: Path) -> str | None:
    """Return which process listens on *path* (``process 123``), or `None` where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except OSError as exc:
            if exc.errno in {errno.ECONNREFUSED, errno.ENOENT, errno.ENOTSOCK}:
                return None
            # EAGAIN: it listens, and its queue is full.
            return "another process"
        return f"process {pid}" if (pid := _peer_pid(probe)) else "another process"


def _peer_pid(probe: socket.socket) -> int | None:
    if sys.platform == "linux":
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", credentials)[0]
    if sys.platform == "darwin":
        return probe.getsockopt(SOL_LOCAL, LOCAL_PEERPID)
    return None


def _make_private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise ListenError(f"{folder}: belongs to somebody else; set XDG_RUNTIME_DIR to a folder of your own")
    if stat.S_IMODE(status.st_mode) & 0o077:
        folder.chmod(0o700)


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Keep a second start from finding the same stale socket; held for a few system calls only."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(path))
        path.chmod(0o600)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
