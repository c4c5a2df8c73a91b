from __future__ import annotations

import pytest
import trio

from tests.support.ssh_peer import open_pair
from tunnel_relay.errors import SshDisconnectedError
from tunnel_relay.ssh.carrier import Standing
from tunnel_relay.ssh.connection import Connection
from tunnel_relay.ssh.settings import SshSettings
from tunnel_relay.ssh.transport import SshTransport


async def test_a_standing_says_who_may_use_a_channel() -> None:
    transport = SshTransport(1 << 30)
    standing = Standing(Connection(transport, SshSettings()))
    with pytest.raises(SshDisconnectedError, match="not open"):
        standing.must_flow()
    standing.check_usable()
    standing.check_connection()
    standing.closed = True
    with pytest.raises(trio.ClosedResourceError):
        standing.check_usable()
    transport.fail(SshDisconnectedError("gone"))
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        standing.check_connection()


async def test_a_connection_is_a_carrier() -> None:
    async with open_pair() as (session, _):
        assert session.queued == 0
