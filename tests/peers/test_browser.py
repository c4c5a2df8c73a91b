"""Chromium, headless, with the proxy set by hand and by the PAC file."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomli_w

from tests.support.programs import Program, Sproxy, start_sproxy

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

TEXT = "<p>seen by a browser</p>"


@contextmanager
def start_web_server(folder: Path) -> Generator[int]:
    """Serve a page on every address of this machine; browsers would go round a proxy to reach loopback."""
    (folder / "index.html").write_text(TEXT)
    log = folder / "web.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "0", "--directory", str(folder)],
            stdout=output,
            stderr=output,
        )
    try:
        program = Program(process, log)
        line = program.wait_for(lambda: program.text() if " port " in program.text() else None)
        yield int(line.partition(" port ")[2].split()[0])
    finally:
        process.terminate()
        process.wait()


def browse(folder: Path, url: str, *options: str) -> str:
    """Return the page at *url* as the browser has built it."""
    assert CHROMIUM is not None
    argv = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", f"--user-data-dir={folder / 'browser'}"),
        *(*options, "--dump-dom", url),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.stdout


@pytest.fixture
def page(tmp_path: Path) -> Generator[str]:
    """The address of a page by this machine's own name."""
    folder = tmp_path / "web"
    folder.mkdir()
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, 80, family=socket.AF_INET)
    except OSError:
        pytest.skip("this machine's name has no IPv4 address")
    with start_web_server(folder) as port:
        yield f"http://{name}:{port}/index.html"


@pytest.fixture
def front_door(tmp_path: Path) -> Generator[Sproxy]:
    """A proxy to which the PAC file sends everything, for only it could fall back to the second way."""
    content = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "upstreams": {"spare": {"kind": "ssh", "address": "127.0.0.1:1", "ssh": {"user": "me"}}},
        "routes": [{"match": "*", "upstream": ["direct", "spare"]}],
    }
    profile = tmp_path / "browser.toml"
    profile.write_text(tomli_w.dumps(content))
    with start_sproxy(profile) as proxy:
        yield proxy


@pytest.mark.parametrize("scheme", ["socks5", "socks4", "http"])
def test_a_page_comes_through_a_proxy_set_by_hand(
    page: str, front_door: Sproxy, scheme: str, tmp_path: Path
) -> None:
    dom = browse(tmp_path, page, f"--proxy-server={scheme}://{front_door.address}")

    assert TEXT in dom
    assert _went_through(front_door, page, "socks" if scheme != "http" else "http")


def test_a_page_comes_through_the_pac_file(page: str, front_door: Sproxy, tmp_path: Path) -> None:
    dom = browse(tmp_path, page, f"--proxy-pac-url=http://{front_door.admin}/proxy.pac")

    assert TEXT in dom
    assert _went_through(front_door, page, "http")


def _went_through(proxy: Sproxy, page: str, protocol: str) -> bool:
    port = page.rpartition(":")[2].partition("/")[0]

    def logged() -> bool | None:
        lines = (line for line in proxy.events() if line.get("event") == "connection")
        found = any(
            str(line.get("target", "")).endswith(f":{port}") and str(line["protocol"]).startswith(protocol)
            for line in lines
        )
        return found or None

    return proxy.wait_for(logged)
