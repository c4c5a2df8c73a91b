"""What goes wrong between clients, relays and agents: connections go on, byte for byte, over another WebSocket."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peers.test_transfers import GIB, MIB, digest_of_pattern
from tests.support.curl import needs_curl
from tests.support.downloads import Download, downloading, pause
from tests.support.programs import Lab
from tests.support.relay_site import RelaySite, open_site
from tests.support.socks import connect, receive_exactly

pytestmark = [needs_curl, pytest.mark.slow]

BLACKOUT = 20.0
PATIENCE = 120.0
LENGTH = 24 * MIB


@pytest.fixture
def site(tmp_path: Path) -> Generator[RelaySite]:
    with open_site(tmp_path / "site") as site:
        yield site


def logins(site: RelaySite) -> int:
    return site.sshd.log().count("Accepted publickey")


@pytest.mark.timeout(900)
def test_a_gibibyte_and_a_shell_outlive_everything(lab: Lab, site: RelaySite) -> None:
    """In one download: the client's and the agent's connection cut, the server restarted, a blackout, a move."""
    url = f"http://{lab.target('direct').http}/bytes/{GIB}"
    with (
        connect(site.proxy.address, lab.target("direct").echo) as shell,
        downloading(f"socks5h://{site.proxy.address}", url, site.folder, rate="100M") as download,
    ):

        def chat(word: bytes) -> None:
            shell.settimeout(60)
            shell.sendall(word)
            assert receive_exactly(shell, len(word)) == word

        def blackout() -> None:
            site.client_cable.stall()
            pause(BLACKOUT)
            site.client_cable.flow()

        def cut_both() -> None:
            site.client_cable.cut()
            site.agent_cable.cut()

        def move() -> None:
            site.client_cable.move("127.0.0.3")

        deeds = (site.client_cable.cut, site.agent_cable.cut, site.restart_server, blackout, cut_both, move)
        for number, deed in enumerate(deeds, 1):
            download.wait_for(number * GIB // (len(deeds) + 2), PATIENCE)
            deed()
            chat(f"after {number}".encode())
        assert download.digest(PATIENCE) == digest_of_pattern(GIB)
        chat(b"still here")
    assert logins(site) == 1
    assert "127.0.0.3" in site.server.text()


@contextmanager
def quick_download(lab: Lab, site: RelaySite) -> Generator[Download]:
    """Fetch `LENGTH` bytes in a few seconds."""
    url = f"http://{lab.target('direct').http}/bytes/{LENGTH}"
    with downloading(f"socks5h://{site.proxy.address}", url, site.folder, rate="8M") as download:
        yield download
        assert download.digest() == digest_of_pattern(LENGTH)
    # The same SSH goes on.
    assert logins(site) == 1


@pytest.mark.parametrize("who", ["client", "agent"])
def test_a_download_goes_on_where_a_connection_is_cut(lab: Lab, site: RelaySite, who: str) -> None:
    cable = site.client_cable if who == "client" else site.agent_cable
    with quick_download(lab, site) as download:
        for part in (1, 2, 3):
            download.wait_for(part * LENGTH // 5)
            # It may take a moment to come back from the last one.
            cable.wait_joined()
            assert cable.cut() == 1


def test_a_download_goes_on_where_the_server_is_restarted(lab: Lab, site: RelaySite) -> None:
    with quick_download(lab, site) as download:
        download.wait_for(LENGTH // 4)
        site.restart_server()
