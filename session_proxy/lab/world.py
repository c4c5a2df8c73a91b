"""A whole world on loopback: AWS's endpoint and agents, SSH, awg and relay servers, and targets for every transport.

`open_world` opens it for a block and leaves in its folder what other programs need to come in:
``profile.toml`` for ``sproxy run``, ``client.toml`` for ``sproxy awg-client``, ``env`` for boto3, the AWS CLI and
AWS's own session-manager-plugin, and ``ready.json``.
"""

from __future__ import annotations

import functools
import io
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import paramiko
import trio

from session_proxy.lab.agent import AgentSettings
from session_proxy.lab.authorized_keys import AuthorizedKeys
from session_proxy.lab.awg_server import open_awg_server
from session_proxy.lab.aws_protocol import Call
from session_proxy.lab.control_api import ControlApi
from session_proxy.lab.ec2_api import Ec2Api
from session_proxy.lab.endpoint import Endpoint
from session_proxy.lab.faults import Faults
from session_proxy.lab.files import (
    Ways,
    environ_of,
    render_client,
    render_environ,
    render_profile,
    render_ready,
    write_key,
)
from session_proxy.lab.gateway import Gateway
from session_proxy.lab.http import serve_connection
from session_proxy.lab.instances import DEFAULT_INSTANCES, LabInstance
from session_proxy.lab.listening import free_port, open_sockets
from session_proxy.lab.relay import open_relay
from session_proxy.lab.ssh_server import SshServer
from session_proxy.lab.targets import Targets, open_targets
from session_proxy.profile.private_files import write_private
from session_proxy.target import Target
from tunnel_relay.background import open_background

TRANSPORTS = ("direct", "ssh", "ssm", "ssm-port", "awg", "relay")
PROFILE = "profile.toml"
ENVIRON = "env"
READY = "ready.json"
AWG_CLIENT = "client.toml"
KEY = "id_ed25519"
HOST_KEY = "host_ed25519"


@attrs.frozen(kw_only=True)
class LabSettings:
    """What a lab is to be like.

    *pace* makes the agents as slow as AWS's: 1024 bytes at a time, then a millisecond of sleep. *payload* is
    the agents' bytes per frame; absent, 1024 with *pace* and 64 KiB without, which the demo can wait for.
    *sshd* is a real SSH server to use instead of the embedded one; *ssh_user* and *ssh_key* log in there.
    """

    pace: bool = False
    payload: int | None = None
    sshd: Target | None = None
    ssh_user: str = "lab"
    ssh_key: Path | None = None
    faults: Faults = attrs.field(factory=Faults)
    instances: Sequence[LabInstance] = DEFAULT_INSTANCES


@attrs.frozen(kw_only=True)
class World:
    """An open lab. *environ* is what ``env`` holds; *faults* and *instances* may be changed at any time."""

    directory: Path
    environ: Mapping[str, str]
    targets: Mapping[str, Targets]
    endpoint: str
    sshd: str
    instances: dict[str, LabInstance]
    faults: Faults
    gateway: Gateway
    keys: AuthorizedKeys
    _endpoint: Endpoint = attrs.field(alias="api")

    @property
    def profile(self) -> Path:
        """The profile that reaches every target by its transport."""
        return self.directory / PROFILE

    @property
    def calls(self) -> Sequence[Call]:
        """The latest control calls, the newest last."""
        return self._endpoint.calls

    def cut_websockets(self, *, lose: int = 0) -> int:
        """Cut every client's WebSocket without a word; the last *lose* frames of each go missing.

        Returns how many were cut. The sessions stay, to be resumed.
        """
        return self.gateway.cut_websockets(lose=lose)

    def close_websockets(self) -> int:
        """Close every client's WebSocket as AWS does when it is an hour old; the sessions stay."""
        return self.gateway.close_websockets()

    def end_sessions(self, reason: str = "") -> int:
        """End every session, as an administrator would; clients are told with ``channel_closed``."""
        return self.gateway.end_sessions(reason)

    async def restart_agent(self, downtime: float = 0.0) -> None:
        """End every session and take the agents off the network for *downtime* seconds."""
        before = dict(self.instances)
        for instance in before.values():
            self.instances[instance.id] = attrs.evolve(instance, connected=False)
        self.end_sessions("The agent is restarting.")
        try:
            await trio.sleep(downtime)
        finally:
            self.instances.update(before)


@asynccontextmanager
async def open_world(directory: Path, settings: LabSettings) -> AsyncGenerator[World]:
    """Open a lab for the block, and write its files into *directory*, which is made if need be.

    The files stay. Nothing of it shows in an `ExceptionGroup` but bugs.

    Raises:
      OSError: a port or a file could not be had.

    """
    directory = _prepare(directory)
    keys = AuthorizedKeys()
    async with AsyncExitStack() as stack:
        targets = {name: await stack.enter_async_context(open_targets()) for name in TRANSPORTS}
        nursery = await stack.enter_async_context(open_background())
        sshd, key = await _settle_sshd(directory, settings, keys, nursery)
        instances = {instance.id: instance for instance in settings.instances}
        aws = await stack.enter_async_context(_open_aws(settings, instances, keys))
        awg = await stack.enter_async_context(open_awg_server("profile", "client"))
        relay = await stack.enter_async_context(open_relay(Target.parse(sshd)))
        ways = Ways(
            listen=f"127.0.0.1:{free_port(random.SystemRandom())}",
            admin=f"127.0.0.1:{free_port(random.SystemRandom())}",
            endpoint=f"http://{aws.address}",
            targets=targets,
            instances=[one.id for one in instances.values() if one.connected and one.state == "running"],
            sshd=sshd,
            user=settings.ssh_user,
            key=key,
            awg=awg["profile"],
            client_listen=f"127.0.0.1:{free_port(random.SystemRandom())}",
            client=awg["client"],
            relay=relay,
        )
        _write_files(directory, ways)
        yield World(
            directory=directory,
            environ=environ_of(ways),
            targets=targets,
            endpoint=ways.endpoint,
            sshd=sshd,
            instances=instances,
            faults=settings.faults,
            gateway=aws.gateway,
            keys=keys,
            api=aws.api,
        )


def _prepare(directory: Path) -> Path:
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    # Of the last lab in this folder: whoever waits for us must not find it, nor refuse our new host key.
    for left in (READY, "known_hosts"):
        (directory / left).unlink(missing_ok=True)
    return directory


@attrs.frozen
class _Aws:
    """AWS's part of a lab, at *address*."""

    address: str
    gateway: Gateway
    api: Endpoint


@asynccontextmanager
async def _open_aws(
    settings: LabSettings, instances: dict[str, LabInstance], keys: AuthorizedKeys
) -> AsyncGenerator[_Aws]:
    """Serve control calls and sessions, and play the agents of *instances*, for the block."""
    agent = AgentSettings(
        pace=settings.pace,
        payload=settings.payload,
        host=settings.sshd.host if settings.sshd else "localhost",
    )
    async with open_background() as nursery, Gateway.open(agent, settings.faults) as gateway:
        api = Endpoint(
            ControlApi(instances, gateway, settings.faults),
            Ec2Api(instances, keys, settings.faults, time.monotonic),
            settings.faults,
            gateway.serve_client,
        )
        sockets = await open_sockets()
        gateway.url = f"ws://{sockets.address}"
        handler = functools.partial(serve_connection, api.handle)
        await nursery.start(functools.partial(trio.serve_listeners, handler, sockets.tcp))
        yield _Aws(sockets.address, gateway, api)


def _write_files(directory: Path, ways: Ways) -> None:
    write_private(directory / PROFILE, render_profile(ways, directory))
    write_private(directory / ENVIRON, render_environ(environ_of(ways)))
    write_private(directory / AWG_CLIENT, render_client(ways))
    # Last: whoever waits for it finds the others.
    write_private(directory / READY, render_ready(ways))


async def _settle_sshd(
    directory: Path, settings: LabSettings, keys: AuthorizedKeys, nursery: trio.Nursery
) -> tuple[str, Path | None]:
    """Return where the SSH server is and which key logs in; start the embedded one if it is to be that."""
    if settings.sshd is not None:
        return str(settings.sshd), settings.ssh_key and settings.ssh_key.absolute()
    keys.add(write_key(directory / KEY))
    write_key(directory / HOST_KEY)
    host_key = paramiko.Ed25519Key.from_private_key(io.StringIO((directory / HOST_KEY).read_text()))
    server = SshServer(host_key, keys)
    sockets = await open_sockets()
    await nursery.start(functools.partial(trio.serve_listeners, server.serve, sockets.tcp))
    return sockets.address, directory / KEY
