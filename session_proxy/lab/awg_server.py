"""The lab's awg server: a real one, whose policy allows this machine and nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from awg_obfs.policy import Policy, networks
from awg_obfs.protocol.keys import key_to_text, new_preshared_key, new_private_key, public_key_of
from awg_obfs.protocol.presets import random_parameters, server_side
from awg_obfs.protocol.randomness import PooledRandomness
from awg_obfs.server import ServerPeer, ServerSettings, TunnelServer, serve_tunnels
from session_proxy.profile.model import AwgUpstream
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tunnel_relay.background import open_background

LOOPBACK = networks("127.0.0.0/8", "::1/128")


@asynccontextmanager
async def open_awg_server(*names: str) -> AsyncGenerator[dict[str, AwgUpstream]]:
    """Serve peers of these names on a free port of loopback for the block; yields how each comes in."""
    random = PooledRandomness(os.urandom)
    server_key = new_private_key(random)
    client_keys = {name: new_private_key(random) for name in names}
    shared = new_preshared_key(random)
    parameters = random_parameters(random)
    settings = ServerSettings(
        listen=("127.0.0.1", 0),
        private_key=server_key,
        parameters=server_side(parameters),
        peers=[
            ServerPeer(name=name, public_key=public_key_of(key), preshared_key=shared)
            for name, key in client_keys.items()
        ],
        policy=Policy(allow=LOOPBACK, deny=()),
        keepalive_padding=True,
    )
    async with open_background() as nursery:
        server: TunnelServer = await nursery.start(partial(serve_tunnels, settings))
        yield {
            name: AwgUpstream(
                endpoint=Target.of(*server.address),
                private_key=_secret(key),
                public_key=_secret(public_key_of(server_key)),
                preshared_key=_secret(shared),
                keepalive_padding=True,
                awg=parameters,
            )
            for name, key in client_keys.items()
        }


def _secret(key: bytes) -> Secret:
    return Secret("literal", "", key_to_text(key))
