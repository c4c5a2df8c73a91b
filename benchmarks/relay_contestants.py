"""How contestants get to the sshd of a relay's agent: ours through the relay, ``ssh -D`` straight or through a peer."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs

from benchmarks import contestants
from benchmarks.arena import Arena, Contestant
from benchmarks.contestants import AbsentError, Sshd
from benchmarks.processes import free_port, program
from benchmarks.relay_site import RelaySite, wait_listening

SSH, CHISEL, WSTUNNEL, WEBSOCAT = "ssh -D", "chisel", "wstunnel", "websocat"
MODES = {"sproxy": "end-to-end", "relay-ssh": "relay-ssh"}


@attrs.frozen
class RelayContestant(Contestant):
    """One of ours, and which process does what."""

    parts: Mapping[str, int] = attrs.field(factory=dict[str, int])


@asynccontextmanager
async def ours(arena: Arena, site: RelaySite, name: str) -> AsyncGenerator[Contestant]:
    """Run ``sproxy run`` with an upstream of kind ``relay``."""
    profile = {"default": "relay", "upstreams": {"relay": site.upstream(MODES[name])}}
    async with contestants.sproxy(arena, site.folder, profile, name=name, env=site.environ) as client:
        (pid,) = client.roots
        parts = {"client": pid, "server": site.server, "agent": site.agent}
        yield RelayContestant(name, client.address, tuple(parts.values()), parts=parts)


@asynccontextmanager
async def straight(arena: Arena, site: RelaySite) -> AsyncGenerator[Contestant]:
    """Run ``ssh -D`` over TCP."""
    async with contestants.ssh_dynamic(arena, site.folder, site.sshd, name=SSH) as peer:
        yield peer


@asynccontextmanager
async def chisel(arena: Arena, site: RelaySite) -> AsyncGenerator[Contestant]:
    """Run ``ssh -D`` through chisel: an agent that dials out, a server with TLS, and a client."""
    binary = find("chisel", "CHISEL")
    port, met, entry = free_port(), free_port(), free_port()
    tls = ["--tls-key", "key.pem", "--tls-cert", "cert.pem"]
    server = [binary, "server", "--host", "127.0.0.1", "--port", str(port), "--reverse", *tls]
    dial = [binary, "client", "--tls-ca", "cert.pem", f"https://127.0.0.1:{port}"]
    agent = [*dial, f"R:127.0.0.1:{met}:127.0.0.1:{site.sshd.port}"]
    client = [*dial, f"127.0.0.1:{entry}:127.0.0.1:{met}"]
    async with _met(arena, site, CHISEL, [(server, port), (agent, met), (client, entry)]) as peer:
        yield peer


@asynccontextmanager
async def wstunnel(arena: Arena, site: RelaySite) -> AsyncGenerator[Contestant]:
    """Run ``ssh -D`` through wstunnel: an agent that dials out, a server with TLS, and a client."""
    binary = find("wstunnel", "WSTUNNEL")
    port, met, entry = free_port(), free_port(), free_port()
    url = f"wss://127.0.0.1:{port}"
    server = [binary, "server", "--tls-certificate", "cert.pem", "--tls-private-key", "key.pem", url]
    agent = [binary, "client", "-R", f"tcp://127.0.0.1:{met}:127.0.0.1:{site.sshd.port}", url]
    client = [binary, "client", "-L", f"tcp://127.0.0.1:{entry}:127.0.0.1:{met}", url]
    async with _met(arena, site, WSTUNNEL, [(server, port), (agent, met), (client, entry)]) as peer:
        yield peer


@asynccontextmanager
async def websocat(arena: Arena, site: RelaySite) -> AsyncGenerator[Contestant]:
    """Run ``ssh -D`` through websocat: it has no agents, so its server is beside the sshd, and without TLS."""
    binary = find("websocat", "WEBSOCAT")
    port = free_port()
    server = [binary, "--binary", "-E", f"ws-l:127.0.0.1:{port}", f"tcp:127.0.0.1:{site.sshd.port}"]
    client = f"{binary} --binary - ws://127.0.0.1:{port}"
    log = site.folder / f"{WEBSOCAT}.log"
    async with program(server, log=log) as process:
        await wait_listening(port, process, log)
        async with contestants.ssh_dynamic(
            arena, site.folder, site.sshd, name=WEBSOCAT, through=client
        ) as peer:
            yield attrs.evolve(peer, roots=(*peer.roots, process.pid))


def find(name: str, variable: str) -> str:
    """Return the program of that *name*: on the path, or where *variable* says; raises `AbsentError`."""
    binary = os.environ.get(variable) or shutil.which(name)
    if binary is None:
        raise AbsentError(f"{name} is neither on the path nor named by {variable}")
    return str(Path(binary).absolute())


@asynccontextmanager
async def _met(
    arena: Arena, site: RelaySite, name: str, processes: list[tuple[list[str], int]]
) -> AsyncGenerator[Contestant]:
    """Run *processes*, each until it listens at its port; the last one leads to the sshd."""
    folder = site.folder / name
    folder.mkdir()
    for file in ("cert.pem", "key.pem"):
        (folder / file).symlink_to(site.folder / file)
    roots: list[int] = []
    async with AsyncExitStack() as stack:
        for number, (argv, port) in enumerate(processes):
            log = folder / f"{number}.log"
            inside = ["env", f"--chdir={folder}", *argv]
            process = await stack.enter_async_context(program(inside, log=log))
            await wait_listening(port, process, log)
            roots.append(process.pid)
        sshd = attrs.evolve(site.sshd, port=processes[-1][1])
        peer = await stack.enter_async_context(
            contestants.ssh_dynamic(arena, site.folder, Sshd(sshd.port, sshd.user, sshd.key, 0), name=name)
        )
        yield attrs.evolve(peer, roots=(*peer.roots, *roots))


STARTS = {
    SSH: straight,
    CHISEL: chisel,
    WSTUNNEL: wstunnel,
    WEBSOCAT: websocat,
}
