"""How each contestant is started: ours as anyone would run it, the peers with their defaults for speed."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import tomli_w
import trio

from benchmarks.arena import Arena, Contestant, FailedError
from benchmarks.measures import BARE
from benchmarks.processes import free_port, program

# One cipher for all, so that what is compared is the programs (house.md of ours: aes256-gcm first).
CIPHER = "aes256-gcm@openssh.com"
# Ours, whether or not the script is on the path.
SPROXY = (sys.executable, "-c", "from session_proxy.cli.main import main; main()")
NO_PROXY = BARE


class AbsentError(Exception):
    """A peer is not installed here."""


Start = AbstractAsyncContextManager[Contestant]


@attrs.frozen
class Sshd:
    """A running OpenSSH server of ours: where it listens and whom it lets in."""

    port: int
    user: str
    key: Path
    pid: int


@asynccontextmanager
async def open_sshd(folder: Path) -> AsyncGenerator[Sshd]:
    """Run an sshd on loopback with a host key and a user key of its own; raises `AbsentError`."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if sshd is None:
        raise AbsentError("sshd is not installed")
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        await trio.run_process(command, stdin=subprocess.DEVNULL)
    port = free_port()
    config = folder / "sshd_config"
    _write_sshd_config(config, port)
    async with program([sshd, "-D", "-e", "-f", str(config)], log=folder / "sshd.log") as process:
        yield Sshd(port, getpass.getuser(), folder / "user", process.pid)


def _write_sshd_config(config: Path, port: int) -> None:
    folder = config.parent
    lines = (
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'user.pub'}",
        f"Ciphers {CIPHER}",
        "StrictModes no",
        "PidFile none",
        "UsePAM no",
    )
    config.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    # Where it drops its privileges to, if it has any; a package's start script makes it elsewhere.
    with contextlib.suppress(PermissionError):
        Path("/run/sshd").mkdir(exist_ok=True)


@asynccontextmanager
async def sproxy(
    arena: Arena,
    folder: Path,
    profile: Mapping[str, object],
    *,
    name: str = "sproxy",
    env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Contestant]:
    """Run ``sproxy run`` with *profile*, to which a free port to listen on is added."""
    port = free_port()
    file = folder / f"{name.replace(' ', '-')}.toml"
    file.write_text(tomli_w.dumps({**profile, "listen": f"127.0.0.1:{port}"}), encoding="utf-8")
    argv = [*SPROXY, "run", str(file), "--log-level", "warning"]
    log = file.with_suffix(".log")
    async with program(argv, log=log, env=env) as process:
        yield await ready(arena, Contestant(name, ("127.0.0.1", port), (process.pid,)), log)


@asynccontextmanager
async def microsocks(arena: Arena, folder: Path) -> AsyncGenerator[Contestant]:
    """Run microsocks: C, a thread per connection."""
    if shutil.which("microsocks") is None:
        raise AbsentError("microsocks is not installed")
    port = free_port()
    argv = ["microsocks", "-i", "127.0.0.1", "-p", str(port)]
    log = folder / "microsocks.log"
    async with program(argv, log=log) as process:
        yield await ready(arena, Contestant("microsocks", ("127.0.0.1", port), (process.pid,)), log)


@asynccontextmanager
async def pproxy(arena: Arena, folder: Path) -> AsyncGenerator[Contestant]:
    """Run pproxy: Python, asyncio."""
    if importlib.util.find_spec("pproxy") is None:
        raise AbsentError("pproxy is not installed")
    port = free_port()
    argv = [sys.executable, "-m", "pproxy", "-l", f"socks5://127.0.0.1:{port}"]
    log = folder / "pproxy.log"
    async with program(argv, log=log) as process:
        yield await ready(arena, Contestant("pproxy", ("127.0.0.1", port), (process.pid,)), log)


@asynccontextmanager
async def ssh_dynamic(
    arena: Arena,
    folder: Path,
    sshd: Sshd,
    *,
    name: str = "ssh -D",
    both_ends: bool = False,
    through: str = "none",
    env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Contestant]:
    """Run ``ssh -D`` to *sshd*, or *through* a ProxyCommand.

    *both_ends* counts the server's processes too, where nobody else needs a server.
    """
    if shutil.which("ssh") is None:
        raise AbsentError("ssh is not installed")
    port = free_port()
    options = (
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ExitOnForwardFailure=yes",
        "BatchMode=yes",
        f"ProxyCommand={through}",
    )
    argv = [
        *("ssh", "-F", "none", "-N", "-D", f"127.0.0.1:{port}", "-c", CIPHER),
        *("-p", str(sshd.port), "-i", str(sshd.key)),
        *(part for option in options for part in ("-o", option)),
        f"{sshd.user}@127.0.0.1",
    ]
    log = folder / f"{name}.log"
    async with program(argv, log=log, env=env) as process:
        roots = (process.pid, sshd.pid) if both_ends else (process.pid,)
        yield await ready(arena, Contestant(name, ("127.0.0.1", port), roots), log)


@asynccontextmanager
async def asyncssh(arena: Arena, folder: Path, sshd: Sshd) -> AsyncGenerator[Contestant]:
    """Run asyncssh's SOCKS forwarder: Python, asyncio."""
    if importlib.util.find_spec("asyncssh") is None:
        raise AbsentError("asyncssh is not installed")
    port = free_port()
    argv = [
        *(sys.executable, "-m", "benchmarks.asyncssh_forwarder", str(port)),
        *(str(sshd.port), sshd.user, str(sshd.key), CIPHER),
    ]
    log = folder / "asyncssh.log"
    async with program(argv, log=log) as process:
        yield await ready(arena, Contestant("asyncssh", ("127.0.0.1", port), (process.pid,)), log)


async def ready(arena: Arena, contestant: Contestant, log: Path | None) -> Contestant:
    """Return *contestant* once it carries something; what failed otherwise stands in its *log*."""
    try:
        await arena.wait_ready(contestant)
    except FailedError as exc:
        text = "" if log is None else await trio.Path(log).read_text(errors="replace")
        last = text.strip().rpartition("\n")[2]
        raise FailedError(f"{exc}: {last}" if last else str(exc)) from exc
    return contestant
