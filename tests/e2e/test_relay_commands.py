"""``sproxy relay-ssh`` and ``sproxy relay-request`` by a profile, through ``relay-server`` and ``relay-agent``."""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import END, SPROXY
from tests.support.relay_command import ROOT
from tests.support.relay_site import RelaySite, open_site
from tests.support.sshd import SSHD
from tests.support.threaded_target import serving

pytestmark = pytest.mark.skipif(not SSHD, reason="sshd is not installed")


class Shouting(socketserver.StreamRequestHandler):
    """Answers what it heard, in capitals."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.read().upper())


def run(site: RelaySite, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command of ours in the folder of the profile, which `sproxy run` would find there, too."""
    return subprocess.run(
        [*SPROXY, *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=END,
        cwd=site.folder,
        env={**site.environ, "PYTHONPATH": str(ROOT)},
    )


def test_end_to_end(tmp_path: Path) -> None:
    with open_site(tmp_path) as site:
        (site.folder / "profile.toml").rename(site.folder / "config.toml")
        proxy = f"{sys.executable} -m tests.support.sproxy_program relay-ssh --profile {site.folder}/config.toml %r@%h"
        options = {
            "ProxyCommand": proxy,
            "IdentityFile": str(site.folder / "id"),
            "UserKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "no",
            "BatchMode": "yes",
        }
        said = subprocess.run(
            [
                *("ssh", "-F", "none"),
                *(part for key, value in options.items() for part in ("-o", f"{key}={value}")),
                *(f"{site.sshd.user}@nas", "cat"),
            ],
            input=b"hello",
            capture_output=True,
            check=False,
            timeout=END,
            cwd=ROOT,
            env={**os.environ, **site.environ},
        )
        assert said.stdout == b"hello", said.stderr
        done = run(site, "relay-request", "ssh", "--data", "hello\n", "--max-size", "200")
        assert done.stdout.startswith(b"SSH-2.0-"), done.stderr
        done = run(site, "relay-ssh", "--upstream", "office", "nas")
        assert done.returncode == 78
        assert done.stderr.endswith(b"upstreams.office: is not there; name one by --upstream: home\n")


def test_where_the_relay_speaks_ssh(tmp_path: Path) -> None:
    with open_site(tmp_path, mode="relay-ssh") as site, serving(Shouting) as target:
        profile = ("--profile", str(site.folder / "profile.toml"))
        for _ in range(2):
            done = run(
                site, "relay-request", target, *profile, "--id", "once", "--priority", "high", stdin=b"hello"
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, b"HELLO", b"")
        done = run(site, "relay-request", "127.0.0.1:1", *profile, "--data", "x", "--id", "y")
        assert (done.returncode, done.stdout) == (69, b"")
        assert done.stderr.startswith(b"sproxy: request y to 127.0.0.1:1: refused: ")
        done = run(site, "relay-request", "ssh", *profile, "--data", "x")
        assert done.returncode == 2
        # The stream goes end to end all the same.
        done = run(site, "relay-ssh", *profile, "nas")
        assert done.stdout.startswith(b"SSH-2.0-")
