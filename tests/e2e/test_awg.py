"""The lab's awg-server for other programs, and two clients of one server, as docs/awg.md has them made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from session_proxy.lab.targets import PAGE
from tests.support.awg_tunnel import Site, start_daemon
from tests.support.curl import curl, needs_curl
from tests.support.programs import start_lab

pytestmark = needs_curl


def test_awg_client_goes_through_the_labs_server_beside_the_profile(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    with (
        start_lab(tmp_path / "lab") as lab,
        start_daemon("awg-client", lab.folder / "client.toml", env) as client,
    ):
        url = f"http://{lab.target('awg').http}/"

        assert curl("--proxy", f"socks5h://lab:lab@{client.address}", url).stdout == PAGE
        assert curl("--proxy", f"http://lab:lab@{client.address}", url).stdout == PAGE
        assert curl("--proxy", f"socks5h://{client.address}", url).returncode


def test_a_second_client_needs_a_peer_of_its_own_and_the_parameters_of_the_first(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # Paths of sockets are short.
    site, other = Site.new(tmp_path_factory.mktemp("a")), Site.new(tmp_path_factory.mktemp("b"))
    [peer] = other.server["peers"]
    site.server["peers"].append({**peer, "name": "phone"})
    other.client |= {key: site.client[key] for key in ("endpoint", "public_key", "awg")}

    with (
        start_lab(tmp_path_factory.mktemp("lab")) as lab,
        site.start_server() as server,
        site.start_client() as first,
        other.start_client() as second,
    ):
        url = f"http://{lab.target('direct').http}/"
        for client in (first, second, first):
            assert curl("--proxy", f"socks5h://app:sesame@{client.address}", url).stdout == PAGE
        up = [line["link"] for line in server.events() if line["event"] == "awg session up"]

    assert sorted(map(str, up)) == ["client", "phone"]
