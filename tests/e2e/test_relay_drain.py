"""SIGTERM to a relay server that has streams in its own hands: they go on until they end, and so does it."""

from __future__ import annotations

import signal
import socketserver
from pathlib import Path

import pytest

from tests.support.programs import END
from tests.support.relay_site import open_site
from tests.support.socks import connect, receive_exactly
from tests.support.sshd import SSHD
from tests.support.threaded_target import serving
from tunnel_relay.server.service import LEAVING

pytestmark = pytest.mark.skipif(not SSHD, reason="sshd is not installed")


class Echo(socketserver.StreamRequestHandler):
    """Sends back what it hears."""

    def handle(self) -> None:
        while data := self.request.recv(1024):
            self.request.sendall(data)


def test_streams_that_the_relay_carries_itself_end_before_it_does(tmp_path: Path) -> None:
    """The limit is much longer than what is waited for: it ends because they have."""
    assert END < 300
    with (
        serving(Echo) as target,
        open_site(tmp_path, mode="relay-ssh", more="[limits]\ndrain = 300\n") as site,
    ):
        with connect(site.proxy.address, target) as stream:
            stream.sendall(b"before")
            assert receive_exactly(stream, 6) == b"before"
            site.server.process.send_signal(signal.SIGTERM)
            # The agent looks for another server, and stays with this one.
            site.agent.wait_for(lambda: LEAVING in site.agent.text() or None)
            stream.sendall(b"meanwhile")
            assert receive_exactly(stream, 9) == b"meanwhile"
        assert site.server.process.wait(END) == 0
        site.start_server()
        site.agent.wait_for(lambda: site.agent.text().count('"linked"') == 2 or None)
        with connect(site.proxy.address, target) as stream:
            stream.sendall(b"after")
            assert receive_exactly(stream, 5) == b"after"
