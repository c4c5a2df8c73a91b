"""A real OpenSSH server on loopback, configured for one test: own keys, own port, no privileges needed.

with start_sshd(tmp_path, options={"RekeyLimit": "4M none"}) as server:
    server.authorize(public_line)
    ...  # 127.0.0.1, server.port, server.user, server.host_key
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""
HOST = "127.0.0.1"
# Privilege separation wants this folder when sshd runs as root.
_PRIVSEP = Path("/run/sshd")
_READY = 10.0
_ATTEMPTS = 5
# Making a longer key takes seconds.
_SMALL = {"rsa": ("-b", "2048")}


@attrs.define(eq=False)
class Sshd:
    """A running sshd. *host_key* is its public key as ``TYPE BASE64``; *log* is what it wrote."""

    port: int
    user: str
    host_key: str
    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def authorized_keys(self) -> Path:
        return self.directory / "authorized_keys"

    def authorize(self, *public_lines: str) -> None:
        """Let these public keys log in, and no others."""
        self.authorized_keys.write_text("".join(f"{line}\n" for line in public_lines))

    def log(self) -> str:
        return (self.directory / "sshd.log").read_text(errors="replace")

    def kill_sessions(self) -> None:
        """Kill the server processes of all connections, and leave the listener."""
        for child in _descendants(self.process.pid):
            try:
                os.kill(child, 9)
            except ProcessLookupError:
                continue


def generate_key(
    path: Path, kind: str = "ed25519", *, passphrase: str = "", extra: Iterable[str] = ()
) -> str:
    """Make a key pair with ssh-keygen at *path*; return the public line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", f"test-{kind}", "-f", str(path), *extra],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path.with_name(path.name + ".pub").read_text().strip()


@contextmanager
def start_sshd(
    directory: Path,
    *,
    options: Mapping[str, str] | None = None,
    authorized: Iterable[str] = (),
    host_key: str = "ed25519",
) -> Generator[Sshd]:
    """Run sshd in the foreground with its files in *directory*; *options* override its configuration."""
    directory.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        _PRIVSEP.mkdir(exist_ok=True)
    key_file = directory / f"host_{host_key}"
    public = (
        generate_key(key_file, host_key)
        if not key_file.exists()
        else key_file.with_suffix(".pub").read_text()
    )
    process, port = _spawn(directory, key_file, options or {})
    server = Sshd(port, getpass.getuser(), " ".join(public.split()[:2]), directory, process)
    server.authorize(*authorized)
    try:
        yield server
    finally:
        server.kill_sessions()
        process.kill()
        process.wait()


def _spawn(
    directory: Path, key_file: Path, options: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    # Between finding a free port and sshd taking it somebody else may take it: then sshd exits, and we try again.
    for _ in range(_ATTEMPTS):
        port = _free_port()
        config = directory / "sshd_config"
        config.write_text(
            "".join(f"{k} {v}\n" for k, v in _configuration(directory, key_file, port, options))
        )
        with (directory / "sshd.log").open("wb") as log:
            process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if _answers(process, port):
            return process, port
        process.kill()
        process.wait()
    raise RuntimeError(f"sshd does not start: {(directory / 'sshd.log').read_text()}")


def _configuration(
    directory: Path, key_file: Path, port: int, options: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    settings = {
        "ListenAddress": HOST,
        "Port": str(port),
        "HostKey": str(key_file),
        "PidFile": "none",
        "AuthorizedKeysFile": str(directory / "authorized_keys"),
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        "LogLevel": "VERBOSE",
        "MaxStartups": "1000",
        "MaxAuthTries": "20",
        "PrintMotd": "no",
        "UseDNS": "no",
    }
    yield from {**settings, **options}.items()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _READY
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection((HOST, port), timeout=1) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            # Nothing listens yet. This is no Trio program, and there is nothing else to wait for.
            time.sleep(0.01)  # noqa: TID251
    return False


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    for child in map(int, children.stdout.split()):
        found += [*_descendants(child), child]
    return found
