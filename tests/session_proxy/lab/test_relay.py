"""The lab's relay: only its agent's service is reached, and all of it goes away with the block."""

from __future__ import annotations

import time
from functools import partial

import pytest
import trio

from session_proxy.lab.relay import AGENT, open_relay
from session_proxy.outbound.relay_dialing import SecretTokens, dial_settings
from session_proxy.profile.model import RelayUpstream
from session_proxy.target import Target
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.dialing import Dialing
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import StreamRefusedError


async def greet(stream: trio.SocketStream) -> None:
    await stream.send_all(b"SSH-2.0-greeting\r\n")


async def reach(nursery: trio.Nursery, upstream: RelayUpstream) -> Reaching:
    """Return a client of the relay."""
    reaching = Reaching(nursery, upstream.agent or "", SessionSettings())
    settings = await dial_settings(upstream.endpoints, None, {})
    tokens = SecretTokens(upstream.token)
    dialing = Dialing(
        reaching, settings, tokens, rng=lambda: 0.5, unix_time=time.time, notify=lambda _event: None
    )
    nursery.start_soon(dialing.run)
    return reaching


async def test_the_agent_offers_the_ssh_server_and_nothing_else() -> None:
    with trio.fail_after(90):
        async with open_background() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
            port: int = listeners[0].socket.getsockname()[1]
            async with open_relay(Target.of("127.0.0.1", port)) as upstream:
                assert upstream.agent == AGENT
                reaching = await reach(nursery, upstream)
                stream = reaching.open_stream("ssh")
                await stream.wait_accepted()
                assert await stream.receive_some() == b"SSH-2.0-greeting\r\n"
                other = reaching.open_stream("http")
                with pytest.raises(StreamRefusedError, match="no service 'http'"):
                    await other.wait_accepted()
