"""Real programs through ``sproxy awg-client``, and through ``sproxy run`` with a route to an upstream of kind awg.

Each with both engines of QUIC: with qh3, and as where the extra ``fast`` is not installed.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import attrs
import dns.query
import dns.resolver
import pytest

from session_proxy.lab.targets import PAGE
from session_proxy.target import split_host_port
from tests.support.awg_tunnel import PASSWORD, USER, Site, wait_ready
from tests.support.curl import COULD_NOT_CONNECT, OK, PROXY_HANDSHAKE, curl, needs_curl
from tests.support.dns_server import LONG_TEXT, SUFFIX
from tests.support.programs import Lab, Sproxy
from tests.support.socks_udp import udp_sockets

MIB = 1 << 20
GIB = 1 << 30
PATIENCE = 600
# A name that is in one /etc/hosts only: the server's.
ONLY_THERE = "only-there.test"


@attrs.frozen
class Door:
    """A way into the tunnel: where, with which credentials, and whether with qh3."""

    address: str
    credentials: tuple[str, str] | None
    fast: bool

    @property
    def down(self) -> int:
        """How many bytes to fetch: a gibibyte by ``awg-client`` with qh3."""
        return GIB if self.fast and self.credentials else GIB // 16

    @property
    def up(self) -> int:
        """How many bytes to send: a gibibyte by ``run`` with qh3."""
        return GIB if self.fast and not self.credentials else GIB // 16

    @property
    def proxy(self) -> str:
        login = "{}:{}@".format(*self.credentials) if self.credentials else ""
        return f"socks5h://{login}{self.address}"


@pytest.fixture(scope="module", params=["qh3", "aioquic"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.new(tmp_path_factory.mktemp("site"), fast=request.param == "qh3")


def with_hosts(hosts: Path) -> list[str]:
    """Return the command that runs a program which finds *hosts* as its /etc/hosts, or none where that cannot be."""
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    within = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(hosts)]
    try:
        subprocess.run([*within, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return within


@pytest.fixture(scope="module")
def server(site: Site) -> Generator[Sproxy]:
    hosts = site.folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {ONLY_THERE}\n")
    with site.start_server(within=with_hosts(hosts)) as running:
        yield running


@pytest.fixture(scope="module", params=["awg-client", "run"])
def door(request: pytest.FixtureRequest, site: Site, server: Sproxy) -> Generator[Door]:
    """Either front end."""
    del server  # it runs
    if request.param == "awg-client":
        with site.start_client() as client:
            wait_ready(client)
            yield Door(client.address, (USER, PASSWORD), site.fast)
    else:
        routes = [{"match": "*", "upstream": "edge"}]
        with site.start_proxy(default="reject", routes=routes) as proxy:
            yield Door(proxy.address, None, site.fast)


@needs_curl
def test_a_page_comes_through(lab: Lab, door: Door) -> None:
    answer = curl("-x", door.proxy, f"http://{lab.target('direct').http}/")

    assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr


@needs_curl
def test_an_upload_arrives_whole(lab: Lab, door: Door, tmp_path: Path) -> None:
    payload = os.urandom(8_000_001)
    (tmp_path / "payload").write_bytes(payload)

    answer = curl(
        "-x", door.proxy, "--upload-file", str(tmp_path / "payload"), f"http://{lab.target('direct').http}/up"
    )

    assert answer.stdout.decode() == hashlib.sha256(payload).hexdigest(), answer.stderr


@needs_curl
def test_names_are_resolved_on_the_server(lab: Lab, door: Door, site: Site) -> None:
    """This machine does not know the name; the server does."""
    if not with_hosts(site.folder / "hosts"):
        pytest.skip("mount namespaces are not to be had")
    port = lab.target("direct").http.rpartition(":")[2]
    assert curl(f"http://{ONLY_THERE}:{port}/").returncode != OK

    answer = curl("-x", door.proxy, f"http://{ONLY_THERE}:{port}/")

    assert (answer.returncode, answer.stdout) == (OK, PAGE), answer.stderr


@needs_curl
def test_what_the_server_cannot_reach_is_reported(door: Door) -> None:
    for url in ("http://127.0.0.1:1/", "http://no-such-name.invalid/"):
        answer = curl("-x", door.proxy, url)
        assert answer.returncode in (COULD_NOT_CONNECT, PROXY_HANDSHAKE), answer.stderr


@needs_curl
def test_two_hundred_at_once(lab: Lab, door: Door) -> None:
    """Curl opens them all together; every body is the right one."""
    url = f"http://{lab.target('direct').http}/bytes/[1000-1199]"

    answer = curl(
        *("--parallel", "--parallel-immediate", "--parallel-max", "200", "-x", door.proxy),
        *("--write-out", "%{size_download} ", "--output", "/dev/null", url),
    )

    assert answer.returncode == OK, answer.stderr
    assert sorted(map(int, answer.stdout.split())) == list(range(1000, 1200))


@needs_curl
@pytest.mark.slow
def test_two_hundred_programs_at_once(lab: Lab, door: Door) -> None:
    url = f"http://{lab.target('direct').http}/bytes/100000"

    def fetch(_: int) -> str:
        return hashlib.sha256(curl("-x", door.proxy, url).stdout).hexdigest()

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        digests = set(pool.map(fetch, range(200)))

    assert digests == {hashlib.sha256((bytes(range(256)) * 391)[:100_000]).hexdigest()}


@needs_curl
@pytest.mark.slow
def test_a_gibibyte_arrives_whole(lab: Lab, door: Door) -> None:
    block = bytes(range(256)) * (MIB // 256)
    expected = hashlib.sha256()
    for _ in range(door.down // MIB):
        expected.update(block)
    url = f"http://{lab.target('direct').http}/bytes/{door.down}"
    argv = ["curl", "-q", "-sS", "--max-time", str(PATIENCE), "-x", door.proxy, url]
    arrived = hashlib.sha256()

    with subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0) as download:
        assert download.stdout is not None
        while piece := download.stdout.read(MIB):
            arrived.update(piece)

    assert (download.returncode, arrived.hexdigest()) == (OK, expected.hexdigest())


@needs_curl
@pytest.mark.slow
def test_a_gibibyte_goes_up_whole(lab: Lab, door: Door, tmp_path: Path) -> None:
    digest = hashlib.sha256()
    with (tmp_path / "payload").open("wb") as payload:
        for _ in range(door.up // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            payload.write(block)
    url = f"http://{lab.target('direct').http}/up"

    answer = curl("-x", door.proxy, "--upload-file", str(tmp_path / "payload"), url, patience=PATIENCE)
    (tmp_path / "payload").unlink()

    assert (answer.returncode, answer.stdout.decode()) == (OK, digest.hexdigest()), answer.stderr


@pytest.fixture
def resolver(door: Door, monkeypatch: pytest.MonkeyPatch) -> Generator[dns.resolver.Resolver]:
    """Dnspython's resolver, whose sockets are UDP associations; the name server is on the far side."""
    argv = [sys.executable, "-m", "tests.support.dns_server"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = dns.resolver.Resolver(configure=False)
        found.nameservers = ["127.0.0.1"]
        found.port = int(process.stdout.readline())
        found.lifetime = 20
        monkeypatch.setattr(
            dns.query, "socket_factory", udp_sockets(split_host_port(door.address), door.credentials)
        )
        yield found
        process.kill()


def test_dns_over_udp_associate(resolver: dns.resolver.Resolver) -> None:
    addresses = {record.to_text() for record in resolver.resolve(f"www.{SUFFIX}", "A")}
    longer = {record.to_text() for record in resolver.resolve(f"www.{SUFFIX}", "AAAA")}

    assert (addresses, longer) == ({"192.0.2.1", "192.0.2.2"}, {"2001:db8::1"})
    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve(f"nobody.{SUFFIX}", "A")


def test_an_answer_longer_than_any_datagram_of_the_tunnel(resolver: dns.resolver.Resolver) -> None:
    """3 kB: DATAGRAM frames carry pieces of it."""
    resolver.use_edns(0, 0, 4096)

    records = resolver.resolve(f"long.{SUFFIX}", "TXT")

    assert sorted(record.to_text().strip('"') for record in records) == LONG_TEXT


def test_one_resolver_asks_many_times(resolver: dns.resolver.Resolver) -> None:
    """Associations come and go; the tunnel keeps up."""
    for _ in range(50):
        assert len(resolver.resolve(f"www.{SUFFIX}", "A")) == 2
