"""What goes wrong between ``sproxy awg-client`` and ``sproxy awg-server``: bytes arrive whole, or there is an end.

How soon things work again is part of what is promised: 3 s after a blackout or a move, 6 s after a restart of the
server, without traffic that would ask for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from session_proxy.lab.targets import PAGE
from tests.support.awg_tunnel import (
    PASSWORD,
    PATIENCE,
    USER,
    Site,
    Tunnel,
    open_network,
    open_tunnel,
    wait_ready,
)
from tests.support.curl import COULD_NOT_CONNECT, OK, PROXY_HANDSHAKE, curl, needs_curl
from tests.support.downloads import downloading, pause
from tests.support.namespaces import Namespace, open_namespace
from tests.support.programs import Lab, Sproxy

pytestmark = needs_curl

MB = 1_000_000
BLACKOUT = 30.0
AFTER_BLACKOUT = 3.0
AFTER_MOVE = 3.0
AFTER_RESTART = 6.0
# Until a client that nobody answers any more says so (2 s of silence, and a poll).
NOTICED = 5.0


def pattern(length: int) -> str:
    """Return the digest of what the lab's HTTP target sends."""
    return hashlib.sha256((bytes(range(256)) * (length // 256 + 1))[:length]).hexdigest()


@pytest.fixture(params=["qh3", "aioquic"])
def tunnel(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Tunnel]:
    """A tunnel with either engine of QUIC."""
    with open_tunnel(tmp_path, fast=request.param == "qh3") as opened:
        yield opened


CALM = {"loss": 0.0, "reorder": 0.0, "duplicate": 0.0, "delay": 0.0}
WEATHER: dict[str, dict[str, float]] = {
    "loss and reordering": {"loss": 0.05, "reorder": 0.05, "delay": 0.005},
    "duplicates": {"duplicate": 0.3},
    "everything": {"loss": 0.05, "reorder": 0.1, "duplicate": 0.1, "delay": 0.02},
}


@pytest.mark.slow
def test_transfers_survive_bad_weather(lab: Lab, tunnel: Tunnel, tmp_path: Path) -> None:
    url = f"http://{lab.target('direct').http}"
    (tmp_path / "payload").write_bytes((bytes(range(256)) * (MB // 256 + 1))[:MB])
    for name, weather in WEATHER.items():
        tunnel.network.set(**CALM | weather)

        down = curl("-x", tunnel.proxy, f"{url}/bytes/{MB}")
        up = curl("-x", tunnel.proxy, "--upload-file", str(tmp_path / "payload"), f"{url}/up")

        assert (down.returncode, hashlib.sha256(down.stdout).hexdigest()) == (OK, pattern(MB)), name
        assert (up.returncode, up.stdout.decode()) == (OK, pattern(MB)), name


@pytest.mark.slow
def test_a_session_begins_in_bad_weather(lab: Lab, tmp_path: Path) -> None:
    """Handshakes get lost too; the reference tries again after 5 s."""
    site = Site.new(tmp_path)
    with site.start_server(), open_network(site.port) as network:
        network.set(loss=0.2, reorder=0.2, duplicate=0.2, delay=0.01)
        with site.start_client(network.port) as client:
            wait_ready(client)
            proxy = f"socks5h://{USER}:{PASSWORD}@{client.address}"
            assert curl("-x", proxy, f"http://{lab.target('direct').http}/").stdout == PAGE


@pytest.mark.slow
def test_a_path_of_1280_bytes(lab: Lab, tmp_path: Path) -> None:
    """The most padding that leaves QUIC its 1200 bytes; nothing is ever sent that the path would not take."""
    site = Site.new(tmp_path)
    for side in (site.server, site.client):
        side["mtu"] = 1280
        side["awg"]["s4"] = 20
    length = 12 * MB
    with (
        site.start_server(),
        open_network(site.port, tmp_path / "capture") as network,
    ):
        # An IPv4 header and one of UDP.
        network.set(largest=1280 - 28)
        with site.start_client(network.port) as client:
            wait_ready(client)
            proxy = f"socks5h://{USER}:{PASSWORD}@{client.address}"
            answer = curl("-x", proxy, f"http://{lab.target('direct').http}/bytes/{length}")
        longest = max(len(datagram) for _, _, datagram in network.entries())

    assert hashlib.sha256(answer.stdout).hexdigest() == pattern(length), answer.stderr
    assert 1240 <= longest <= 1252


@pytest.mark.slow
def test_more_padding_than_the_path_leaves_is_one_line(tmp_path: Path) -> None:
    site = Site.new(tmp_path)
    site.client["mtu"] = 1280
    site.client["awg"]["s4"] = 21

    with pytest.raises(AssertionError, match=r"awg\.s4.*20"), site.start_client():
        pass


@pytest.mark.slow
def test_a_client_may_come_from_other_ports_in_mid_transfer(lab: Lab, tunnel: Tunnel, tmp_path: Path) -> None:
    length = 32 * MB
    url = f"http://{lab.target('direct').http}/bytes/{length}"
    with downloading(tunnel.proxy, url, tmp_path) as download:
        for _ in range(3):
            tunnel.network.set(rebind=True)
            assert download.wait_for_more() < AFTER_MOVE
            pause(0.5)

        assert download.digest() == pattern(length)
    assert tunnel.server.find("awg peer moved")


@pytest.mark.slow
def test_a_blackout_is_survived(lab: Lab, tmp_path: Path) -> None:
    """By a transfer, which goes on; and by a client that nobody uses, which sees for itself that it is over."""
    length = 24 * MB
    url = f"http://{lab.target('direct').http}"
    with open_tunnel(tmp_path / "busy") as busy, open_tunnel(tmp_path / "idle", fast=False) as idle:
        with downloading(busy.proxy, f"{url}/bytes/{length}", tmp_path) as download:
            for tunnel in (busy, idle):
                tunnel.network.set(dark=True)
            dark = time.monotonic()
            wait_ready(idle.client, NOTICED, ready=False)
            download.wait_for_stall()
            pause(max(0.0, dark + BLACKOUT - time.monotonic()))
            idle.network.set(dark=False)
            assert idle.wait_usable() < AFTER_BLACKOUT
            busy.network.set(dark=False)

            assert download.wait_for_more() < AFTER_BLACKOUT
            assert download.digest() == pattern(length)
        assert curl("-x", idle.proxy, url).stdout == PAGE


@pytest.mark.slow
def test_connections_opened_in_a_blackout_wait_for_its_end(lab: Lab, tunnel: Tunnel) -> None:
    tunnel.network.set(dark=True)
    wait_ready(tunnel.client, NOTICED, ready=False)
    argv = ["curl", "-q", "-sS", "-x", tunnel.proxy, f"http://{lab.target('direct').http}/"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as waiting:
        pause(3.0)
        tunnel.network.set(dark=False)
        out, _ = waiting.communicate(timeout=PATIENCE)

    assert out == PAGE


def completed(server: Sproxy) -> bool | None:
    """Return whether *server* has shaken hands since it started, or None where it has not."""
    return True if server.find("awg handshake completed") else None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "down"), [(signal.SIGTERM, 0.0), (signal.SIGKILL, 0.0), (signal.SIGKILL, 8.0)]
)
def test_a_client_finds_a_server_that_started_anew(
    lab: Lab, tmp_path: Path, signum: signal.Signals, down: float
) -> None:
    """Without traffic, whether it said good-bye or not, and whether it was away for long or not."""
    site = Site.new(tmp_path)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(site.start_server())
        client = stack.enter_context(site.start_client())
        wait_ready(client)
        server.stop(signum)
        pause(down)
        with site.start_server() as server:
            began = time.monotonic()
            while not (completed(server) and wait_ready(client, AFTER_RESTART + 1) >= 0):
                assert time.monotonic() - began < AFTER_RESTART, server.text()
                pause(0.02)
            took = time.monotonic() - began
            answer = curl("-x", proxy_of(client), f"http://{lab.target('direct').http}/", patience=10)

    assert took < AFTER_RESTART
    assert answer.stdout == PAGE, answer.stderr


def proxy_of(client: Sproxy) -> str:
    return f"socks5h://{USER}:{PASSWORD}@{client.address}"


@pytest.mark.slow
def test_a_transfer_ends_when_the_server_has_forgotten_it(lab: Lab, tmp_path: Path) -> None:
    site = Site.new(tmp_path)
    url = f"http://{lab.target('direct').http}/bytes/{400 * MB}"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(site.start_server())
        client = stack.enter_context(site.start_client())
        wait_ready(client)
        with downloading(proxy_of(client), url, tmp_path) as download:
            server.stop(signal.SIGKILL)
            with site.start_server():
                assert download.process.wait(AFTER_RESTART + 10) != OK


@pytest.mark.slow
def test_a_server_that_is_gone_for_good_is_told(lab: Lab, tmp_path: Path) -> None:
    """The client says why, and new connections are refused within their time.

    What was open ends after a minute of silence: tests/awg_obfs/test_upkeep.py looks at that in virtual time.
    """
    site = Site.new(tmp_path)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(site.start_server())
        client = stack.enter_context(site.start_client(limits={"connect": 5}))
        wait_ready(client)
        server.stop(signal.SIGKILL)
        wait_ready(client, NOTICED, ready=False)
        began = time.monotonic()
        refused = curl("-x", proxy_of(client), f"http://{lab.target('direct').http}/")
        assert time.monotonic() - began < 5 + NOTICED
        assert refused.returncode in (COULD_NOT_CONNECT, PROXY_HANDSHAKE), refused.stderr
        down = client.wait_for(lambda: client.find("upstream down"))
        assert down.get("reason")


# -- moves from one network to another


@attrs.define(eq=False)
class Roaming:
    """A client in a namespace of its own, whose networks come and go; the server is out here."""

    namespace: Namespace
    client: Sproxy
    server: Sproxy

    def is_ready(self) -> bool:
        """Ask the admin page, which is in the namespace too."""
        url = f"http://{self.client.admin}/readyz"
        argv = [*self.namespace.within, "curl", "-q", "-s", "-o", "/dev/null", "-w", "%{http_code}", url]
        return subprocess.run(argv, capture_output=True, check=False).stdout == b"200"

    def wait(self, found: Callable[[], object], patience: float = PATIENCE) -> float:
        began = time.monotonic()
        while not found():
            assert time.monotonic() - began < patience, self.client.text()[-4000:]
            pause(0.02)
        return time.monotonic() - began


SERVER_ADDRESS = "10.214.200.1"


@contextmanager
def roaming(folder: Path, namespace: Namespace, *, mtu: int = 1500) -> Generator[Roaming]:
    site = Site.new(folder)
    port = site.port
    # Reached by whatever network there is.
    subprocess.run(["ip", "addr", "add", f"{SERVER_ADDRESS}/32", "dev", "lo"], check=True)
    try:
        for side in (site.server, site.client):
            side["mtu"] = mtu
            side["awg"]["s4"] = 20
        site.client["endpoint"] = f"{SERVER_ADDRESS}:{port}"
        with (
            site.start_server(listen=f"{SERVER_ADDRESS}:{port}") as server,
            site.start_client(within=namespace.within) as client,
        ):
            roaming = Roaming(namespace, client, server)
            roaming.wait(roaming.is_ready)
            yield roaming
    finally:
        subprocess.run(["ip", "addr", "del", f"{SERVER_ADDRESS}/32", "dev", "lo"], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 5.0])
def test_a_client_moves_from_one_network_to_another(lab: Lab, tmp_path: Path, gap: float) -> None:
    """A new address, at once or after a while without any; the transfer goes on."""
    length = 24 * MB
    url = f"http://{lab.target('direct').http}/bytes/{length}"
    with open_namespace() as namespace:
        first = namespace.join(1)
        with (
            roaming(tmp_path, namespace) as moved,
            downloading(proxy_of(moved.client), url, tmp_path, within=namespace.within) as download,
        ):
            namespace.part(first)
            if gap:
                download.wait_for_stall()
                pause(gap)
            else:
                pause(0.2)
            namespace.join(2)
            joined = time.monotonic()
            if not gap:
                # What was under way may still come from buffers: it is the server that knows of the move.
                moved.wait(lambda: "10.214.2.2" in moved.server.text(), AFTER_MOVE)
            else:
                download.wait_for_more(AFTER_MOVE)
            assert time.monotonic() - joined < AFTER_MOVE
            assert download.digest() == pattern(length)


@pytest.mark.slow
def test_an_idle_client_moves_by_itself(tmp_path: Path) -> None:
    with open_namespace() as namespace:
        first = namespace.join(1)
        with roaming(tmp_path, namespace) as moved:
            namespace.part(first)
            moved.wait(lambda: not moved.is_ready(), NOTICED)
            namespace.join(2)

            assert moved.wait(moved.is_ready) < AFTER_MOVE


@pytest.mark.slow
def test_an_interface_of_1280_bytes(lab: Lab, tmp_path: Path) -> None:
    length = 12 * MB
    with open_namespace() as namespace:
        namespace.join(1, mtu=1280)
        with roaming(tmp_path, namespace, mtu=1280) as moved:
            url = f"http://{lab.target('direct').http}/bytes/{length}"
            argv = [*namespace.within, "curl", "-q", "-sS", "-x", proxy_of(moved.client), url]
            fetched = subprocess.run(argv, capture_output=True, check=True, timeout=PATIENCE * 2)

    assert hashlib.sha256(fetched.stdout).hexdigest() == pattern(length)


# -- noise


@pytest.mark.slow
def test_a_hundred_thousand_bad_datagrams_change_nothing(lab: Lab, tmp_path: Path) -> None:
    """Random ones and damaged copies of real ones: the server lives, does not grow, and serves who it served."""
    with open_tunnel(tmp_path, record=True) as tunnel:
        url = f"http://{lab.target('direct').http}"
        assert curl("-x", tunnel.proxy, f"{url}/bytes/{MB}").returncode == OK
        real = [datagram for _, way, datagram in tunnel.network.entries() if way == "to-server"]
        rng = random.Random(20_251_212)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", tunnel.site.port))
            shower(sock, real, rng, 20_000)
            curl("-x", tunnel.proxy, f"{url}/")
            before = resident(tunnel.server)
            shower(sock, real, rng, 100_000)
        answer = curl("-x", tunnel.proxy, f"{url}/")
        grown = resident(tunnel.server) - before

    assert answer.stdout == PAGE, answer.stderr
    assert grown < 4 * MB
    assert not [line for line in tunnel.server.events() if line.get("level") in ("error", "critical")]


def shower(sock: socket.socket, real: list[bytes], rng: random.Random, count: int) -> None:
    """Send *count* bad datagrams, at a pace that the receiver can keep up with."""
    for number in range(count):
        if number % 2:
            damaged = bytearray(rng.choice(real))
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            datagram = bytes(damaged[: rng.randint(1, len(damaged))] if rng.random() < 0.3 else damaged)
        else:
            datagram = rng.randbytes(rng.randint(0, 1500))
        with contextlib.suppress(OSError):
            sock.send(datagram)
        if number % 64 == 0:
            pause(0.001)


def resident(daemon: Sproxy) -> int:
    """Return the bytes of memory that a process holds."""
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("it has ended")
