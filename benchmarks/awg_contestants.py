"""Who competes with an awg tunnel: the tunnel itself with either engine, other QUIC, and WireGuard.

All of them carry what they carry over UDP, so all can be sent through the same bad network: a `Way` says how a
client gets to the port that its server listens on.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import shutil
import socket
import sys
import tomllib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import tomli_w
import trio

from awg_obfs.protocol.keys import key_to_text, new_private_key, public_key_of
from awg_obfs.protocol.presets import Preset
from awg_obfs.protocol.randomness import PooledRandomness
from awg_obfs.quic.certificate import generate_certificate
from benchmarks.arena import Arena, Contestant, FailedError, Load, open_targets
from benchmarks.contestants import SPROXY, AbsentError, ready
from benchmarks.netem import run
from benchmarks.processes import conversation, free_port, program
from benchmarks.udp_relay import Weather
from benchmarks.wire import Address, Credentials
from session_proxy.profile.awg_writing import new_pair
from session_proxy.target import Target

CREDENTIALS: Credentials = ("bench", "mark")
# What a benchmark opens is beyond what a server should let one client open.
LIMITS = {"streams": 4096, "opens": 1_000_000}

# Where servers listen: a far path ends at another address than loopback's.
ANY = "0.0.0.0"
# How often, and how many times, to look whether a program has started.
POLL, POLLS = 0.05, 200

Way = Callable[[int], AbstractAsyncContextManager[Address]]
"""For the port of a server that listens on all addresses, to where its clients send."""


def free_udp_port() -> int:
    """Return a UDP port of loopback that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def straight(port: int) -> AsyncGenerator[Address]:
    """Loopback as it is."""
    yield "127.0.0.1", port


@asynccontextmanager
async def through_relay(weather: Weather, port: int) -> AsyncGenerator[Address]:
    """Loopback with *weather* on it."""
    argv = [sys.executable, "-m", "benchmarks.udp_relay", f"127.0.0.1:{port}"]
    argv += ["--delay", str(weather.delay), "--loss", str(weather.loss)]
    async with conversation(argv) as relay:
        assert relay.stdout is not None
        yield "127.0.0.1", int(await relay.stdout.receive_some())


@attrs.frozen
class Files:
    """The texts of a server's and a client's file, parsed; made once, so that all tunnels look alike."""

    server: dict[str, object] = attrs.field(repr=False)
    client: dict[str, object] = attrs.field(repr=False)

    @classmethod
    def new(cls) -> Files:
        """Return a new pair, with keys of its own."""
        pair = new_pair(Target.of("127.0.0.1", 1), Preset.DNS, PooledRandomness(os.urandom))
        return cls(tomllib.loads(pair.server), tomllib.loads(pair.client))


@asynccontextmanager
async def tunnel(
    arena: Arena, folder: Path, files: Files, way: Way, *, name: str, fast: bool
) -> AsyncGenerator[Contestant]:
    """Run ``sproxy awg-server`` and ``sproxy awg-client``; without *fast* as if qh3 were not installed."""
    folder = folder / name.replace(" ", "-")
    folder.mkdir()
    env = _environment(folder, fast=fast)
    udp, tcp = free_udp_port(), free_port()
    server, client = folder / "server.toml", folder / "client.toml"
    _write(server, files.server, listen=f"{ANY}:{udp}", policy={"deny": list[str]()}, limits=dict(LIMITS))
    async with way(udp) as entry:
        user, password = CREDENTIALS
        _write(
            client,
            files.client,
            listen=f"127.0.0.1:{tcp}",
            endpoint="{}:{}".format(*entry),
            auth={"user": user, "pass": password},
        )
        log = folder / "log"
        quiet = ("--log-level", "warning")
        async with (
            program([*SPROXY, "awg-server", str(server), *quiet], log=log, env=env) as far,
            program([*SPROXY, "awg-client", str(client), *quiet], log=log, env=env) as near,
        ):
            roots = (near.pid, far.pid)
            contestant = Contestant(name, ("127.0.0.1", tcp), roots, credentials=CREDENTIALS)
            yield await ready(arena, contestant, log)


def _environment(folder: Path, *, fast: bool) -> dict[str, str]:
    """Return where daemons keep their sockets and state, and, without *fast*, no qh3."""
    env = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "XDG_STATE_HOME": str(folder)}
    if fast:
        if importlib.util.find_spec("qh3") is None:
            raise AbsentError("qh3 is not installed")
        return env
    shadow = folder / "without-qh3"
    shadow.mkdir()
    (shadow / "qh3.py").write_text("raise ImportError('hidden by the benchmark')\n", encoding="utf-8")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(shadow), env.get("PYTHONPATH"))))
    return env


@asynccontextmanager
async def crowd(
    arena: Arena, folder: Path, files: Files, *, fast: bool, count: int
) -> AsyncGenerator[tuple[Contestant, Contestant]]:
    """Run a server with *count* sessions from one ``sproxy run``: yields the server's side and the client's.

    Each upstream of the profile is a peer with a key of its own.
    """
    folder = folder / f"crowd-{count}-{'fast' if fast else 'aioquic'}"
    folder.mkdir()
    env = _environment(folder, fast=fast)
    udp, tcp = free_udp_port(), free_port()
    random = PooledRandomness(os.urandom)
    keys = [new_private_key(random) for _ in range(count)]
    peers = [
        {"name": f"peer-{number}", "public_key": key_to_text(public_key_of(key))}
        for number, key in enumerate(keys)
    ]
    server, profile = folder / "server.toml", folder / "profile.toml"
    _write(server, files.server, listen=f"127.0.0.1:{udp}", policy={"deny": list[str]()}, peers=peers)
    common = {key: files.client[key] for key in ("public_key", "keepalive_padding", "awg")}
    upstreams = {
        f"peer-{number}": {
            "kind": "awg",
            "endpoint": f"127.0.0.1:{udp}",
            "private_key": key_to_text(key),
            "startup": "required",
            **common,
        }
        for number, key in enumerate(keys)
    }
    _write(profile, {}, listen=f"127.0.0.1:{tcp}", default="peer-0", upstreams=upstreams)
    log = folder / "log"
    quiet = ("--log-level", "warning")
    async with (
        program([*SPROXY, "awg-server", str(server), *quiet], log=log, env=env) as far,
        program([*SPROXY, "run", str(profile), *quiet], log=log, env=env) as near,
    ):
        await ready(arena, Contestant("crowd", ("127.0.0.1", tcp), (near.pid,)), log)
        yield Contestant("server", None, (far.pid,)), Contestant("client", None, (near.pid,))


def _write(file: Path, content: Mapping[str, object], **changes: object) -> None:
    document = {**content, **changes}
    # TOML wants plain keys before tables.
    plain = {key: value for key, value in document.items() if not isinstance(value, dict) and key != "peers"}
    file.write_text(tomli_w.dumps({**plain, **document}), encoding="utf-8")
    file.chmod(0o600)


@asynccontextmanager
async def plain_quic(arena: Arena, folder: Path, way: Way, *, engine: str) -> AsyncGenerator[Contestant]:
    """Run a client and a server of a QUIC library under asyncio: no proxy, no session below."""
    if importlib.util.find_spec(engine) is None:
        raise AbsentError(f"{engine} is not installed")
    certificate = write_certificate(folder)
    argv = [sys.executable, "-m", "benchmarks.plain_quic", engine]
    async with conversation([*argv, "serve", *map(str, certificate)]) as server:
        assert server.stdout is not None
        port = int(await server.stdout.receive_some())
        async with way(port) as entry, conversation([*argv, "load", entry[0], str(entry[1])]) as client:
            roots = (client.pid, server.pid)
            contestant = Contestant(f"plain {engine}", None, roots, load=Load(client))
            yield await ready(arena, contestant, None)


@asynccontextmanager
async def pproxy_quic(arena: Arena, folder: Path, way: Way) -> AsyncGenerator[Contestant]:
    """Run pproxy on both ends, with QUIC between them."""
    if importlib.util.find_spec("pproxy") is None:
        raise AbsentError("pproxy is not installed")
    certificate, key = write_certificate(folder)
    udp, tcp = free_udp_port(), free_port()
    log = folder / "pproxy-quic.log"
    server = [sys.executable, "-u", "-m", "benchmarks.pproxy_quic", "--ssl", f"{certificate},{key}"]
    server += ["-l", f"quic+socks5://{ANY}:{udp}"]
    client = [sys.executable, "-m", "pproxy", "-l", f"socks5://127.0.0.1:{tcp}"]
    async with way(udp) as entry:
        client += ["-r", "quic+socks5://{}:{}".format(*entry)]
        async with program(server, log=log) as far:
            # It asks once, and takes the silence of a server that starts for good.
            await _wait_for_line(log, "Serving on")
            async with program(client, log=log) as near:
                contestant = Contestant("pproxy QUIC", ("127.0.0.1", tcp), (near.pid, far.pid))
                yield await ready(arena, contestant, log)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate and its key into *folder*, unless they are there, and return the files."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if not key.exists():
        made = generate_certificate()
        certificate.write_bytes(made.certificate_pem())
        key.write_bytes(made.private_key_pem())
    return certificate, key


async def _wait_for_line(log: Path, text: str) -> None:
    for _ in range(POLLS):
        if text in await trio.Path(log).read_text(errors="replace"):
            return
        await trio.sleep(POLL)
    raise FailedError(f"{log.stem} did not start")


# -- WireGuard

NEAR, FAR = "10.213.77.1", "10.213.77.2"
# What WireGuard's own tools set on an Ethernet path.
MTU = "1420"


@asynccontextmanager
async def wireguard_go(arena: Arena, folder: Path, way: Way) -> AsyncGenerator[Contestant]:
    """Run wireguard-go on both ends: TCP of the kernel, through the tunnel, to targets in a namespace of their own."""
    del arena
    for tool in ("wireguard-go", "wg", "ip"):
        if shutil.which(tool) is None:
            raise AbsentError(f"{tool} is not installed")
    if getpass.getuser() != "root" or not await trio.Path("/dev/net/tun").exists():
        raise AbsentError("interfaces and namespaces need root and /dev/net/tun")
    tag = f"{os.getpid() % 100_000}"
    near, far, namespace = f"wgn{tag}", f"wgf{tag}", f"wg{tag}"
    ports = free_udp_port(), free_udp_port()
    log = folder / "wireguard-go.log"
    try:
        await run("ip", "netns", "add", namespace)
        async with (
            way(ports[1]) as entry,
            program(["wireguard-go", "-f", near], log=log) as one,
            program(["wireguard-go", "-f", far], log=log) as other,
        ):
            await _wait_for_interfaces(near, far)
            # The sockets stay where the programs were started; the interface may leave.
            await run("ip", "link", "set", far, "netns", namespace)
            await _introduce(folder, near, (namespace, far), ports, entry)
            await run("ip", "addr", "add", f"{NEAR}/30", "dev", near)
            await run("ip", "link", "set", near, "mtu", MTU, "up")
            await run("ip", "-n", namespace, "addr", "add", f"{FAR}/30", "dev", far)
            await run("ip", "-n", namespace, "link", "set", far, "mtu", MTU, "up")
            within = ("ip", "netns", "exec", namespace)
            async with open_targets(within, FAR) as targets:
                yield Contestant("wireguard-go", None, (one.pid, other.pid), targets)
    finally:
        with trio.CancelScope(shield=True), contextlib.suppress(AbsentError):
            await run("ip", "netns", "del", namespace)


async def _introduce(
    folder: Path, near: str, far: tuple[str, str], ports: tuple[int, int], entry: Address
) -> None:
    keys = [(await run("wg", "genkey")).strip() for _ in ports]
    publics = [(await run("wg", "pubkey", given=key)).strip() for key in keys]
    files = [folder / f"wireguard-{number}.key" for number in range(2)]
    for file, key in zip(files, keys, strict=True):
        file.write_text(key, encoding="ascii")
        file.chmod(0o600)
    common = ("private-key", str(files[0]), "peer", publics[1], "allowed-ips", f"{FAR}/32")
    await run("wg", "set", near, "listen-port", str(ports[0]), *common, "endpoint", "{}:{}".format(*entry))
    namespace, interface = far
    await run(
        *("ip", "netns", "exec", namespace, "wg", "set", interface, "listen-port", str(ports[1])),
        *("private-key", str(files[1]), "peer", publics[0], "allowed-ips", f"{NEAR}/32"),
    )


async def _wait_for_interfaces(*names: str) -> None:
    sockets = [trio.Path(f"/var/run/wireguard/{name}.sock") for name in names]
    for _ in range(POLLS):
        if all([await path.exists() for path in sockets]):
            return
        await trio.sleep(POLL)
    raise FailedError("wireguard-go did not start")


Starter = Callable[[Arena, Path, Way], AbstractAsyncContextManager[Contestant]]


def starters(files: Files) -> dict[str, Starter]:
    """Return everybody by name; the tunnel, which is compared to the others, comes first."""
    return {
        "aioquic": lambda arena, folder, way: tunnel(arena, folder, files, way, name="aioquic", fast=False),
        "fast": lambda arena, folder, way: tunnel(arena, folder, files, way, name="fast", fast=True),
        "plain aioquic": partial(plain_quic, engine="aioquic"),
        "plain qh3": partial(plain_quic, engine="qh3"),
        "pproxy QUIC": pproxy_quic,
        "wireguard-go": wireguard_go,
    }
