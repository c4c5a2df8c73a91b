"""``sproxy awg-server`` and ``sproxy awg-client`` from their first lines to their exit codes, as processes."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager

import attrs
import pytest

from session_proxy.target import split_host_port
from tests.support.awg_tunnel import PASSWORD, USER, Site, wait_ready
from tests.support.programs import END, Sproxy, run_sproxy

ADMIN = {"listen": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.new(tmp_path_factory.mktemp("site"))


@contextmanager
def open_pair(site: Site) -> Generator[tuple[Sproxy, Sproxy]]:
    """Run a server and a client, whose session is up when the block begins."""
    with site.start_server(admin=ADMIN) as server, site.start_client() as client:
        wait_ready(client)
        yield server, client


@contextmanager
def open_held_connection(client: Sproxy) -> Generator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of a connection through *client*: ours, and the destination's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        with socket.create_connection(split_host_port(client.address), timeout=END) as near:
            near.sendall(b"\x05\x01\x02")
            assert near.recv(2) == b"\x05\x02"
            user, password = USER.encode(), PASSWORD.encode()
            near.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
            assert near.recv(2) == b"\x01\x00"
            near.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(host) + port.to_bytes(2, "big"))
            assert near.recv(10)[1] == 0
            far, _ = listener.accept()
            with far:
                far.settimeout(END)
                yield near, far


def scrape(daemon: Sproxy) -> str:
    with urllib.request.urlopen(f"http://{daemon.admin}/metrics", timeout=END) as answer:
        return answer.read().decode()


def test_both_end_when_what_is_open_is_over(site: Site) -> None:
    with open_pair(site) as (server, client), open_held_connection(client) as (near, far):
        for daemon in (client, server):
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_for(lambda daemon=daemon: daemon.find("draining"))
        near.sendall(b"still here")
        assert far.recv(10) == b"still here"
        near.close()
        assert far.recv(1) == b""
        far.close()
        assert (client.process.wait(END), server.process.wait(END)) == (0, 0)


def test_both_end_at_once_when_told_twice(site: Site) -> None:
    with open_pair(site) as (server, client), open_held_connection(client):
        for daemon in (client, server):
            daemon.process.send_signal(signal.SIGINT)
            daemon.wait_for(lambda daemon=daemon: daemon.find("draining"))
        assert client.stop(signal.SIGINT) == 130
        # With its last client gone it may be past its own handlers; a shell says 130 of that as well.
        assert server.stop(signal.SIGINT) in (130, -signal.SIGINT)


def test_both_say_how_they_are(site: Site) -> None:
    with open_pair(site) as (server, client), open_held_connection(client) as (near, far):
        far.sendall(b"hello")
        assert near.recv(5) == b"hello"
        served, proxied = (
            json.loads(run_sproxy("status", "--name", name, "--json", env=site.env).stdout)
            for name in ("server", "client")
        )
        assert served["ready"]
        assert served["connections"]["open"] == 1
        [peer] = served["peers"].values()
        assert (peer["up"], peer["streams"]) == (True, 1)
        assert proxied["upstreams"]["server"]["state"] == "ready"
        table = run_sproxy("status", "--name", "server", env=site.env).stdout
        assert "PEER" in table
        assert " up " in table

        for daemon, link in ((server, "client"), (client, "server")):
            metrics = scrape(daemon)
            assert f'sproxy_awg_sessions{{link="{link}"}} 1.0' in metrics
            assert f'sproxy_awg_handshakes_total{{link="{link}",outcome="ok"}} 1.0' in metrics
            assert f'sproxy_awg_bytes_total{{direction="sent",link="{link}"}}' in metrics
        for quantile in ("0.5", "0.95", "0.99"):
            assert f'sproxy_awg_latency_seconds{{link="server",quantile="{quantile}"}}' in scrape(client)


def test_no_log_and_no_page_shows_a_secret(site: Site) -> None:
    with open_pair(site) as (server, client), open_held_connection(client) as (near, far):
        near.sendall(b"payload-of-a-client")
        assert far.recv(64)
        said = [server.text(), client.text(), scrape(server), scrape(client)]
        said += [
            run_sproxy("status", "--name", name, "--json", env=site.env).stdout
            for name in ("server", "client")
        ]
    secrets = [site.server["private_key"], site.client["private_key"], site.client["preshared_key"], PASSWORD]
    for text in said:
        assert not [secret for secret in (*secrets, "payload-of-a-client") if secret in text]


def test_who_has_no_password_is_turned_away(site: Site) -> None:
    """Also where the session is down: the port says nothing to strangers."""
    with site.start_client() as client, socket.create_connection(split_host_port(client.address)) as stranger:
        stranger.sendall(b"\x05\x01\x00")
        assert stranger.recv(2) == b"\x05\xff"


@attrs.frozen
class Mistake:
    """What is wrong in which file, and what is said of it."""

    command: str
    changes: dict[str, object]
    code: int
    says: str


@pytest.mark.parametrize(
    "mistake",
    [
        Mistake(
            "awg-server", {"private_key": "short"}, 78, "server.toml: private_key: a key is 44 characters"
        ),
        Mistake("awg-server", {"state": "/dev/null"}, 78, "name another one as state"),
        Mistake("awg-client", {"awg": {"jmin": 9, "jmax": 3, "jc": 1}}, 78, "client.toml: awg.jmax: "),
        Mistake("awg-client", {"listen": "203.0.113.1:1"}, 1, "this machine has no such address"),
    ],
    ids=lambda mistake: f"{mistake.command}-{next(iter(mistake.changes))}",
)
def test_a_mistake_is_one_line_and_its_code(mistake: Mistake, site: Site) -> None:
    name = mistake.command.removeprefix("awg-")
    file = site._write(name, {**(site.server if name == "server" else site.client), **mistake.changes})

    done = run_sproxy(mistake.command, str(file), "--log-level", "error", env=site.env)

    assert done.returncode == mistake.code
    [line] = done.stderr.splitlines()
    assert line.startswith("sproxy: ")
    assert mistake.says in line


def test_a_port_that_is_taken_is_one_line(site: Site) -> None:
    file = site._write("server", site.server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", site.port))
        done = run_sproxy("awg-server", str(file), "--log-level", "error", env=site.env)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "something else uses this port" in done.stderr


@pytest.mark.slow
def test_a_required_server_that_does_not_answer_is_one_line_and_69(site: Site) -> None:
    with (
        pytest.raises(AssertionError, match=r"ended with 69(.|\n)*check that awg-server runs there"),
        site.start_proxy(),
    ):
        pass
