"""What goes wrong where the relay speaks SSH: streams outlive all of it but the relay's own end."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peers.test_transfers import GIB, MIB, digest_of_pattern
from tests.support.curl import OK, curl, needs_curl
from tests.support.downloads import Download, downloading, pause
from tests.support.programs import Lab
from tests.support.relay_site import RelaySite, open_site

pytestmark = [needs_curl, pytest.mark.slow]

LENGTH = 24 * MIB
BLACKOUT = 20.0
PATIENCE = 120.0
# The design's: after the relay's own end, new streams work within so many seconds.
BACK = 5.0
LINKS = 2


@pytest.fixture
def site(tmp_path: Path) -> Generator[RelaySite]:
    with open_site(tmp_path / "site", mode="relay-ssh") as site:
        yield site


def logins(site: RelaySite) -> int:
    return site.sshd.log().count("Accepted publickey")


@contextmanager
def quick_download(lab: Lab, site: RelaySite) -> Generator[Download]:
    """Fetch `LENGTH` bytes in a few seconds, over one SSH connection."""
    url = f"http://{lab.target('direct').http}/bytes/{LENGTH}"
    with downloading(f"socks5h://{site.proxy.address}", url, site.folder, rate="8M") as download:
        yield download
        assert download.digest() == digest_of_pattern(LENGTH)
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


@pytest.mark.timeout(600)
def test_a_gibibyte_outlives_cuts_and_a_blackout(lab: Lab, site: RelaySite) -> None:
    url = f"http://{lab.target('direct').http}/bytes/{GIB}"
    with downloading(f"socks5h://{site.proxy.address}", url, site.folder, rate="100M") as download:

        def blackout() -> None:
            for cable in (site.client_cable, site.agent_cable):
                cable.stall()
            pause(BLACKOUT)
            for cable in (site.client_cable, site.agent_cable):
                cable.flow()

        deeds = (site.client_cable.cut, site.agent_cable.cut, blackout)
        for number, deed in enumerate(deeds, 1):
            download.wait_for(number * GIB // (len(deeds) + 2), PATIENCE)
            deed()
        assert download.digest(PATIENCE) == digest_of_pattern(GIB)
    assert logins(site) == 1


def test_new_streams_work_soon_after_the_relay_was_restarted(lab: Lab, site: RelaySite) -> None:
    page = f"http://{lab.target('direct').http}/"
    through = ("-x", f"socks5h://{site.proxy.address}")
    assert curl(*through, page).returncode == OK
    site.restart_server()
    # When the client and the agent dial again is their own affair.
    site.server.wait_for(lambda: site.server.text().count('"link opened"') >= LINKS or None)
    began = time.monotonic()
    while curl(*through, page).returncode != OK:
        assert time.monotonic() - began < PATIENCE
    assert time.monotonic() - began < BACK
    # The relay trusts the host key that it has recorded.
    assert logins(site) == 2
    assert "alice/nas " in (site.folder / ".ssh" / "known_hosts").read_text()


def test_the_client_needs_no_key(lab: Lab, site: RelaySite) -> None:
    (site.folder / "known_hosts").unlink(missing_ok=True)
    answer = curl("-x", f"socks5h://{site.proxy.address}", f"http://{lab.target('direct').http}/")
    assert answer.returncode == OK, answer.stderr
    assert not (site.folder / "known_hosts").exists()
    assert site.server.find("ssh connected")
