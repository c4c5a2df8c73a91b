"""A far path made by the kernel: a network namespace that routes UDP back to this machine, with ``tc netem`` in it.

Clients send to the namespace's address on a first pair of interfaces; it sends on through a second pair, back to
where both programs run, and delays and loses on its way out. Needs root, iproute2, nftables, and a kernel with
sch_netem.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from benchmarks.contestants import AbsentError
from benchmarks.udp_relay import Weather
from benchmarks.wire import Address

# Documentation has no addresses to route; these are private, and hardly anybody's.
NEAR, ENTRY = "10.215.1.1", "10.215.1.2"
BACK, EXIT = "10.215.2.1", "10.215.2.2"
# Datagrams under way: what 50 ms hold of a gigabit a second, and more.
QUEUE = 20_000

RULES = """
table ip bench {{
    chain in {{ type nat hook prerouting priority dstnat; iifname "{near}" dnat to {back}; }}
    chain out {{ type nat hook postrouting priority srcnat; oifname "{far}" masquerade; }}
}}
"""


@asynccontextmanager
async def open_router(weather: Weather | None) -> AsyncGenerator[str]:
    """Make the namespace for the block; yields the address that leads back here.

    Without *weather* it needs no netem.

    Raises:
      AbsentError: something that it needs is not to be had.

    """
    missing = [tool for tool in ("ip", "tc", "nft") if shutil.which(tool) is None]
    if missing or getpass.getuser() != "root":
        raise AbsentError(f"needs root and {', '.join(missing or ('ip', 'tc', 'nft'))}")
    tag = f"bn{os.getpid() % 1_000_000}"
    near, far = f"{tag}a", f"{tag}b"
    try:
        await run("ip", "netns", "add", tag)
        await _join(tag, near, NEAR, ENTRY)
        await _join(tag, far, BACK, EXIT)
        within = ("ip", "netns", "exec", tag)
        await run(*within, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        await run(*within, "nft", "-f", "-", given=RULES.format(near=f"{near}x", far=f"{far}x", back=BACK))
        if weather is not None:
            for interface in (f"{near}x", f"{far}x"):
                await run(*within, *_netem(interface, weather))
        yield ENTRY
    finally:
        with trio.CancelScope(shield=True), contextlib.suppress(AbsentError):
            await run("ip", "netns", "del", tag)


def _netem(interface: str, weather: Weather) -> tuple[str, ...]:
    delay, loss = f"{weather.delay * 1e3:g}ms", f"{weather.loss * 100:g}%"
    return (
        *("tc", "qdisc", "add", "dev", interface, "root", "netem"),
        *("delay", delay, "loss", loss, "limit", str(QUEUE)),
    )


async def _join(namespace: str, name: str, here: str, there: str) -> None:
    far = f"{name}x"
    await run("ip", "link", "add", name, "type", "veth", "peer", "name", far)
    await run("ip", "link", "set", far, "netns", namespace)
    await run("ip", "addr", "add", f"{here}/30", "dev", name)
    await run("ip", "link", "set", name, "up")
    await run("ip", "-n", namespace, "addr", "add", f"{there}/30", "dev", far)
    await run("ip", "-n", namespace, "link", "set", far, "up")


async def run(*argv: str, given: str = "") -> str:
    """Run a command and return its output; raises `AbsentError` with what it complains of."""
    try:
        done = await trio.run_process(
            list(argv), stdin=given.encode(), capture_stdout=True, capture_stderr=True
        )
    except subprocess.CalledProcessError as exc:
        complaint = exc.stderr.decode(errors="replace").strip()
        raise AbsentError(f"{' '.join(argv)}: {complaint}") from exc
    return done.stdout.decode()


@asynccontextmanager
async def through(host: str, port: int) -> AsyncGenerator[Address]:
    """The way by an open router: the port stays what it is."""
    yield host, port
