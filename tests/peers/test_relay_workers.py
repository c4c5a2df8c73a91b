"""A relay of several workers, with real programs around it: what goes through it outlives each worker, and each hop."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peers.test_transfers import GIB, MIB, digest_of_pattern
from tests.support.curl import OK, curl, needs_curl
from tests.support.downloads import downloading
from tests.support.programs import Lab, run_sproxy
from tests.support.redis_server import REDIS_SERVER, free_port, needs_redis
from tests.support.relay_site import RelaySite, open_site

pytestmark = [needs_curl, needs_redis, pytest.mark.slow]

PATIENCE = 120.0
LENGTH = 48 * MIB
HOPS = 10


@contextmanager
def open_workers(folder: Path, mode: str) -> Generator[RelaySite]:
    assert REDIS_SERVER is not None
    port = free_port()
    redis = subprocess.Popen(
        [REDIS_SERVER, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        store = f'[store]\nredis = "redis://127.0.0.1:{port}/0"\n'
        with open_site(folder, mode=mode, top="workers = 3", more=store) as site:
            yield site
    finally:
        redis.kill()
        redis.wait()


def kill_worker(site: RelaySite, number: int) -> None:
    """Kill a worker, and return when it is back."""
    ready = len([line for line in site.server.events() if line["event"] == "ready"])
    line = site.server.find("ready", worker=number)
    assert line is not None
    os.kill(int(str(line["pid"])), signal.SIGKILL)
    site.server.wait_for(
        lambda: len([line for line in site.server.events() if line["event"] == "ready"]) > ready or None
    )


@pytest.mark.timeout(900)
def test_a_gibibyte_outlives_each_worker(lab: Lab, tmp_path: Path) -> None:
    with open_workers(tmp_path / "site", "end-to-end") as site:
        url = f"http://{lab.target('direct').http}/bytes/{GIB}"
        with downloading(f"socks5h://{site.proxy.address}", url, site.folder, rate="100M") as download:
            for worker in (1, 2, 3):
                download.wait_for(worker * GIB // 5, PATIENCE)
                kill_worker(site, worker)
            assert download.digest(PATIENCE) == digest_of_pattern(GIB)
        assert site.sshd.log().count("Accepted publickey") == 1
        assert run_sproxy("reload", "--name", "relay", env=site.environ).returncode == 0
        site.restart_server()


@pytest.mark.parametrize("mode", ["end-to-end", "relay-ssh"])
def test_a_download_goes_on_whichever_worker_client_and_agent_come_to(
    lab: Lab, tmp_path: Path, mode: str
) -> None:
    with open_workers(tmp_path / "site", mode) as site:
        url = f"http://{lab.target('direct').http}/bytes/{LENGTH}"
        through = f"socks5h://{site.proxy.address}"
        with downloading(through, url, site.folder, rate="4M") as download:
            for hop in range(1, HOPS + 1):
                download.wait_for(hop * LENGTH // (HOPS + 2), PATIENCE)
                (site.agent_cable if hop % 3 == 0 else site.client_cable).cut()
            assert download.digest(PATIENCE) == digest_of_pattern(LENGTH)
        assert site.sshd.log().count("Accepted publickey") == 1
        assert site.server.find("peer linked")
        page = f"http://{lab.target('direct').http}/"
        assert curl("-x", through, page).returncode == OK
