"""What a server's refusals mean; tests/session_proxy/outbound/test_ssh.py has links to a real server."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from session_proxy.errors import (
    DialError,
    DialTimeoutError,
    NotAllowedError,
    RefusedError,
    ResolutionError,
    TransportDownError,
    UnreachableError,
)
from session_proxy.outbound.ssh_link import FLOW, SshLink, refused_channel
from tests.support.ssh_peer import open_pair
from tunnel_relay.errors import ChannelOpenFailure, ChannelRefusedError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import string

CONNECT_FAILED = ChannelOpenFailure.CONNECT_FAILED


@pytest.mark.parametrize(
    ("code", "description", "kind"),
    [
        # OpenSSH, glibc
        (CONNECT_FAILED, "Connection refused", RefusedError),
        (CONNECT_FAILED, "Connection timed out", DialTimeoutError),
        (CONNECT_FAILED, "No route to host", UnreachableError),
        (CONNECT_FAILED, "Network is unreachable", UnreachableError),
        (CONNECT_FAILED, "Name or service not known", ResolutionError),
        (CONNECT_FAILED, "Temporary failure in name resolution", ResolutionError),
        (CONNECT_FAILED, "No address associated with hostname", ResolutionError),
        (CONNECT_FAILED, "Operation not permitted", NotAllowedError),
        (CONNECT_FAILED, "Connection failed", UnreachableError),
        # OpenSSH, macOS and musl
        (CONNECT_FAILED, "nodename nor servname provided, or not known", ResolutionError),
        (CONNECT_FAILED, "Name does not resolve", ResolutionError),
        # Go's SSH servers
        (CONNECT_FAILED, "dial tcp 10.0.0.1:80: connect: connection refused", RefusedError),
        (CONNECT_FAILED, "dial tcp: lookup x.invalid: i/o timeout", DialTimeoutError),
        (CONNECT_FAILED, "", UnreachableError),
        (ChannelOpenFailure.ADMINISTRATIVELY_PROHIBITED, "open failed", NotAllowedError),
        (ChannelOpenFailure.UNKNOWN_CHANNEL_TYPE, "no", NotAllowedError),
        (ChannelOpenFailure.RESOURCE_SHORTAGE, "", TransportDownError),
        (77, "odd", UnreachableError),
    ],
)
def test_refusals(code: int, description: str, kind: type[DialError]) -> None:
    error = refused_channel(ChannelRefusedError(code, description))

    assert type(error) is kind
    assert description in str(error)


async def test_a_link_flows_while_a_lot_arrives(autojump_clock: MockClock) -> None:
    async with open_pair() as (session, peer):
        link = SshLink(session)
        await peer.send(bytes([number.IGNORE]), string(bytes(1000)))
        await trio.testing.wait_all_tasks_blocked()
        assert not link.flowing
        for _ in range(8):
            await peer.send(bytes([number.IGNORE]), string(bytes(FLOW // 4)))
        await trio.testing.wait_all_tasks_blocked()
        assert link.flowing
        await trio.sleep(5)
        assert not link.flowing


def test_a_forbidden_channel_names_the_setting() -> None:
    error = refused_channel(ChannelRefusedError(1, "administratively prohibited"))

    assert "AllowTcpForwarding" in str(error)
