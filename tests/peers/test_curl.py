"""curl through every protocol of the front door, to addresses and names, with and without credentials."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest
import tomli_w

from session_proxy.lab.listening import has_ipv6
from session_proxy.lab.targets import PAGE
from tests.support.curl import COULD_NOT_CONNECT, OK, PROXY_HANDSHAKE, RECEIVE_ERROR, curl, needs_curl
from tests.support.programs import Lab, Sproxy, start_sproxy

pytestmark = needs_curl

USER, PASSWORD = "admin", "open sesame: ünïcode"

# curl's name for each protocol, whether the proxy resolves names, and whether it carries IPv6 addresses.
SCHEMES = ["socks5h", "socks5", "socks4a", "socks4", "http"]
SCHEMES_WITH_CREDENTIALS = ["socks5h", "socks5", "http"]


@pytest.fixture(scope="module")
def front_door(tmp_path_factory: pytest.TempPathFactory) -> Generator[Sproxy]:
    """A proxy without credentials that goes everywhere directly."""
    profile = tmp_path_factory.mktemp("open") / "open.toml"
    profile.write_text('listen = "127.0.0.1:0"\n')
    with start_sproxy(profile) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Generator[Sproxy]:
    """A proxy that asks for credentials."""
    profile = tmp_path_factory.mktemp("guarded") / "guarded.toml"
    content = {"listen": "127.0.0.1:0", "auth": {"user": USER, "pass": "env:SPROXY_PASS"}}
    profile.write_text(tomli_w.dumps(content))
    with start_sproxy(profile, env={**os.environ, "SPROXY_PASS": PASSWORD}) as proxy:
        yield proxy


def port(address: str) -> str:
    return address.rpartition(":")[2]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_page_comes_through_every_protocol(lab: Lab, front_door: Sproxy, scheme: str) -> None:
    answer = curl("-x", f"{scheme}://{front_door.address}", f"http://{lab.target('direct').http}/")

    assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
def test_names_are_resolved(lab: Lab, front_door: Sproxy, scheme: str, host: str) -> None:
    url = f"http://{host}:{port(lab.target('direct').http)}/"
    # SOCKS4 has no IPv6, and curl resolves for it.
    only = ["-4"] if scheme == "socks4" else []

    answer = curl(*only, "-x", f"{scheme}://{front_door.address}", url)

    assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "http"])
def test_ipv6_addresses_are_reached(lab: Lab, front_door: Sproxy, scheme: str) -> None:
    url = f"http://[::1]:{port(lab.target('direct').http)}/"

    answer = curl("--globoff", "-x", f"{scheme}://{front_door.address}", url)

    assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr


def test_http_connect_is_a_tunnel(lab: Lab, front_door: Sproxy) -> None:
    answer = curl("--proxytunnel", "-x", front_door.address, f"http://{lab.target('direct').http}/")

    assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr


def test_absolute_form_requests_share_a_connection(lab: Lab, front_door: Sproxy) -> None:
    """The client keeps one connection to the proxy for requests to one server and to another."""
    urls = [f"http://{lab.target(name).http}/bytes/{n}" for name, n in (("direct", 10), ("direct", 20))]

    answer = curl("--write-out", "%{num_connects}", "-x", f"http://{front_door.address}", *urls)

    assert answer.returncode == OK
    assert answer.stdout == bytes(range(10)) + b"1" + bytes(range(20)) + b"0"


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a", "http"])
def test_an_upload_arrives_whole(lab: Lab, front_door: Sproxy, scheme: str, tmp_path: Path) -> None:
    payload = os.urandom(3_000_001)
    (tmp_path / "payload").write_bytes(payload)

    answer = curl(
        *("-x", f"{scheme}://{front_door.address}", "--upload-file", str(tmp_path / "payload")),
        f"http://{lab.target('direct').http}/up",
    )

    assert answer.stdout.decode() == hashlib.sha256(payload).hexdigest(), answer.stderr


@pytest.mark.parametrize("scheme", SCHEMES_WITH_CREDENTIALS)
def test_credentials_open_the_door(lab: Lab, guarded: Sproxy, scheme: str) -> None:
    answer = curl(
        *("-x", f"{scheme}://{guarded.address}", "--proxy-user", f"{USER}:{PASSWORD}"),
        f"http://{lab.target('direct').http}/",
    )

    assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr


@pytest.mark.parametrize("credentials", [[], ["--proxy-user", f"{USER}:wrong"], ["--proxy-user", "nobody:"]])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_wrong_credentials_do_not(lab: Lab, guarded: Sproxy, scheme: str, credentials: list[str]) -> None:
    answer = curl("-x", f"{scheme}://{guarded.address}", *credentials, f"http://{lab.target('direct').http}/")

    assert PAGE not in answer.stdout
    if scheme == "http":
        # Absolute-form: the answer is HTTP, and says what is asked for (RFC 9110, section 15.5.8).
        assert b"407" in curl("-i", "-x", f"http://{guarded.address}", *credentials, "http://x.test/").stdout
    else:
        assert answer.returncode in (COULD_NOT_CONNECT, PROXY_HANDSHAKE), answer.stderr


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_refused_destination_is_reported(front_door: Sproxy, scheme: str) -> None:
    tunnel = ["--proxytunnel"] if scheme == "http" else []

    # Port 1 (tcpmux) is closed on any machine of today.
    answer = curl(*tunnel, "-x", f"{scheme}://{front_door.address}", "http://127.0.0.1:1/")

    assert answer.returncode in (COULD_NOT_CONNECT, PROXY_HANDSHAKE, RECEIVE_ERROR), answer.stderr
    assert answer.stderr


@pytest.mark.parametrize("scheme", ["socks5h", "http"])
def test_two_hundred_at_once(lab: Lab, front_door: Sproxy, scheme: str) -> None:
    """Curl's own parallel mode opens them all together; every body is the right one."""
    url = f"http://{lab.target('direct').http}/bytes/[1000-1199]"

    answer = curl(
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        "200",
        "-x",
        f"{scheme}://{front_door.address}",
        "--write-out",
        "%{size_download} ",
        "--output",
        "/dev/null",
        url,
    )

    assert answer.returncode == OK, answer.stderr
    assert sorted(map(int, answer.stdout.split())) == list(range(1000, 1200))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_hundred_programs_at_once(lab: Lab, front_door: Sproxy, scheme: str) -> None:
    url = f"http://{lab.target('direct').http}/bytes/100000"

    def fetch(_: int) -> str:
        return hashlib.sha256(curl("-x", f"{scheme}://{front_door.address}", url).stdout).hexdigest()

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        digests = set(pool.map(fetch, range(200)))

    expected = (bytes(range(256)) * 391)[:100_000]
    assert digests == {hashlib.sha256(expected).hexdigest()}
