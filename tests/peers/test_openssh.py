"""OpenSSH's sshd as the far end of ssh and ssm: no password, and a key exchange of today."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Generator
from pathlib import Path

import pytest
import tomli_w

from session_proxy.lab.targets import PAGE
from tests.support.curl import OK, curl, needs_curl
from tests.support.programs import Lab, Sproxy, start_lab, start_sproxy
from tests.support.sshd import SSHD, Sshd, generate_key, start_sshd

pytestmark = [needs_curl, pytest.mark.skipif(not SSHD, reason="sshd is not installed")]

GOOD_KEY_EXCHANGES = ("mlkem768x25519-sha256", "curve25519-sha256")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Generator[Sshd]:
    folder = tmp_path_factory.mktemp("sshd")
    public = generate_key(folder / "id_ed25519")
    with start_sshd(folder, options={"LogLevel": "DEBUG1"}, authorized=[public]) as server:
        yield server


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, sshd: Sshd) -> Generator[Lab]:
    """A lab whose instances have the real sshd."""
    options = ["--sshd", f"127.0.0.1:{sshd.port}", "--ssh-user", sshd.user]
    key = ["--ssh-key", str(sshd.directory / "id_ed25519")]
    with start_lab(tmp_path_factory.mktemp("lab"), *options, *key) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(lab: Lab) -> Generator[Sproxy]:
    with start_sproxy(lab.profile, env=lab.env) as running:
        yield running


@pytest.mark.parametrize("transport", ["ssh", "ssm"])
def test_a_page_comes_through_openssh(lab: Lab, proxy: Sproxy, sshd: Sshd, transport: str) -> None:
    answer = curl("-x", f"socks5h://{proxy.address}", f"http://{lab.target(transport).http}/")

    assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr
    agreed = re.findall(r"kex: algorithm: (\S+)", sshd.log())
    assert agreed
    assert set(agreed) <= set(GOOD_KEY_EXCHANGES)
    assert set(re.findall(r"kex: server->client cipher: (\S+)", sshd.log())) == {"aes256-gcm@openssh.com"}


@pytest.mark.parametrize("transport", ["ssh", "ssm"])
def test_two_hundred_streams_share_it(lab: Lab, proxy: Sproxy, transport: str, tmp_path: Path) -> None:
    url = f"http://{lab.target(transport).http}/bytes/[1000-1199]"

    answer = curl(
        *("--parallel", "--parallel-immediate", "--parallel-max", "200"),
        *("-x", f"socks5h://{proxy.address}"),
        *("--write-out", "%{size_download} ", "--output", "/dev/null"),
        url,
    )

    assert answer.returncode == OK, answer.stderr
    assert sorted(map(int, answer.stdout.split())) == list(range(1000, 1200))


@pytest.mark.parametrize("transport", ["ssh", "ssm"])
def test_a_refused_destination_is_told_apart(lab: Lab, transport: str, tmp_path: Path) -> None:
    """The instance refuses: curl hears so from the proxy, and the log says which upstream it was."""
    content = tomllib.loads(lab.profile.read_text())
    del content["routes"], content["admin"]
    profile = tmp_path / "all.toml"
    profile.write_text(tomli_w.dumps({**content, "listen": "127.0.0.1:0", "default": transport}))
    with start_sproxy(profile, env=lab.env) as everything:
        answer = curl("-x", f"socks5h://{everything.address}", "http://127.0.0.1:1/")

        assert answer.returncode != OK
        line = everything.wait_for(lambda: everything.find("connection"))
        assert (line["outcome"], line["upstream"]) == ("refused", transport)
