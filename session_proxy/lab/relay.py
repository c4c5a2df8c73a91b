"""The lab's relay: a real server and a real agent, which offers the lab's SSH server."""

from __future__ import annotations

import functools
import random
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from session_proxy.lab.listening import open_sockets
from session_proxy.observability.http import HttpAnswer, HttpRequest, serve_http_stream
from session_proxy.outbound.relay_dialing import SecretTokens
from session_proxy.profile.model import RelayEndpoint, RelayUpstream
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tunnel_relay.agent.running import AgentEvent, AgentSettings, open_agent
from tunnel_relay.background import open_background
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.tokens import Claims, Key, Scope, Verifier, issue
from tunnel_relay.protocol.upgrade import HEALTH_PATH
from tunnel_relay.server.events import RelayEvent
from tunnel_relay.server.port import PublicPort
from tunnel_relay.server.service import RelayService

USER = "lab"
AGENT = "lab"
TIER = "enterprise"

# A lab that runs for longer is started anew.
LIFETIME = 365 * 24 * 3600.0


@asynccontextmanager
async def open_relay(sshd: Target) -> AsyncGenerator[RelayUpstream]:
    """Run a relay and an agent beside *sshd* for the block; yields how clients get there, but for the login."""
    key = Key("EdDSA", Ed25519PrivateKey.generate())
    service = RelayService(Verifier({key.key_id: key}), time.time, _ignore)
    port = PublicPort(service, functools.partial(serve_http_stream, {("GET", HEALTH_PATH): _well}))
    sockets = await open_sockets()
    url = f"ws://{sockets.address}"
    async with open_background() as nursery:
        await nursery.start(functools.partial(trio.serve_listeners, port.serve_socket, sockets.tcp))
        agent = AgentSettings(
            name=AGENT,
            services={"ssh": (sshd.host, sshd.port)},
            dial=DialSettings(endpoints=[Endpoint(url=url)]),
        )
        tokens = SecretTokens(_token(key, Scope.AGENT))
        async with open_agent(
            agent, tokens, rng=random.SystemRandom().random, unix_time=time.time, notify=_ignore
        ):
            yield RelayUpstream(
                endpoints=(RelayEndpoint(url=url),), token=_token(key, Scope.CLIENT), agent=AGENT
            )


def _token(key: Key, scope: Scope) -> Secret:
    now = time.time()
    claims = Claims(USER, now + LIFETIME, TIER, frozenset({scope}), secrets.token_hex(8))
    return Secret("literal", "", issue(claims, key, audience=None, now=now))


async def _well(_request: HttpRequest) -> HttpAnswer:
    await trio.lowlevel.checkpoint()
    return HttpAnswer.text("ok")


def _ignore(_event: RelayEvent | AgentEvent) -> None:
    pass
