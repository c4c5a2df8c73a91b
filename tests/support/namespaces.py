"""A network namespace that is joined to this one by pairs of interfaces, for moves from network to network."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager

import attrs
import pytest

NUMBER = os.getpid() % 60_000


@attrs.frozen
class Link:
    """A pair of interfaces: addresses *here* and *there*."""

    name: str
    here: str
    there: str


@attrs.define(eq=False)
class Namespace:
    """A running namespace; `within` is the command that runs a program in it."""

    name: str

    @property
    def within(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def join(self, number: int, *, mtu: int = 1500) -> Link:
        """Add a link, and make it the way out; *number* keeps links apart."""
        link = Link(f"sp{NUMBER}-{number}", f"10.214.{number}.1", f"10.214.{number}.2")
        far = f"{link.name}x"
        ip("link", "add", link.name, "mtu", str(mtu), "type", "veth", "peer", "name", far, "mtu", str(mtu))
        ip("link", "set", far, "netns", self.name)
        ip("addr", "add", f"{link.here}/24", "dev", link.name)
        ip("link", "set", link.name, "up")
        ip("-n", self.name, "addr", "add", f"{link.there}/24", "dev", far)
        ip("-n", self.name, "link", "set", far, "up")
        ip("-n", self.name, "route", "replace", "default", "via", link.here)
        return link

    def part(self, link: Link) -> None:
        """Take a link away, as a network out of reach."""
        ip("link", "del", link.name)


def ip(*arguments: str) -> None:
    """Have iproute2 do what *arguments* say."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def open_namespace() -> Generator[Namespace]:
    """Make a namespace for the block; skips the test where that is not to be had."""
    if shutil.which("ip") is None:
        pytest.skip("ip(8) is not installed")
    if getpass.getuser() != "root":
        pytest.skip("namespaces need root")
    name = f"sproxy-{NUMBER}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no namespaces here: {exc.stderr.decode(errors='replace').strip()}")
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield Namespace(name)
    finally:
        # Its end of every link goes with it, and ours with that.
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "del", name)
