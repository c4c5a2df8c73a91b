"""What a profile says, as typed values. `session_proxy.profile.loading` makes them from files.

Every default that a person can rely on stands here, and only here; the reference in ``docs/`` is generated
from these classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from session_proxy.policy.rules import Rule
from session_proxy.profile.secret import Secret
from session_proxy.target import Target

Startup = Literal["required", "background"]


@attrs.frozen
class ListenAddress:
    """An address to listen on; port 0 means any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen(kw_only=True)
class Auth:
    """The credentials that clients of the front door must present (RFC 1929, HTTP Basic)."""

    user: str
    password: Secret = attrs.field(metadata={"key": "pass"})


@attrs.frozen(kw_only=True)
class Admin:
    """Where health, metrics and the PAC file are served."""

    listen: ListenAddress


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of the front door: a number of connections, and seconds."""

    connections: int = 4096
    handshake: float = 10.0
    connect: float = 30.0
    idle: float = 3600.0
    drain: float = 10.0


@attrs.frozen(kw_only=True)
class Aws:
    """Which AWS credentials to use: a profile, inline keys, or boto3's own chain where nothing is said."""

    profile: str | None = None
    region: str | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None


@attrs.frozen(kw_only=True)
class Ssh:
    """How to log in by SSH and which host keys to accept."""

    user: str | None = None
    key: str | None = None
    passphrase: Secret | None = None
    host_keys: Literal["accept-new", "strict"] = "accept-new"
    known_hosts: Path = Path("~/.ssh/known_hosts")
    port: int = 22


@attrs.frozen(kw_only=True)
class DataChannel:
    """How an SSM data channel is driven.

    *payload* is bytes per frame, *frames_per_second* bounds all frames (AWS cuts clients above 1000),
    *resume* is how many seconds a lost WebSocket may take to come back.
    """

    payload: int = 16384
    frames_per_second: int = 900
    resume: float = 60.0


@attrs.frozen(kw_only=True)
class SsmUpstream:
    """SSH through AWS Session Manager (document ``AWS-StartSSHSession``)."""

    kind: Literal["ssm"] = "ssm"
    instances: tuple[str, ...]
    sessions: int = 4
    startup: Startup | None = None
    aws: Aws = Aws()
    ssh: Ssh = Ssh()
    data_channel: DataChannel = DataChannel()


@attrs.frozen(kw_only=True)
class SsmPortUpstream:
    """AWS Session Manager's own port forwarding to remote hosts: no sshd needed on the instance."""

    kind: Literal["ssm-port"] = "ssm-port"
    instances: tuple[str, ...]
    startup: Startup | None = None
    aws: Aws = Aws()
    data_channel: DataChannel = DataChannel()


@attrs.frozen(kw_only=True)
class SshUpstream:
    """A bastion reached by SSH over plain TCP."""

    kind: Literal["ssh"] = "ssh"
    address: Target
    startup: Startup | None = None
    ssh: Ssh = Ssh()


Upstream = SsmUpstream | SsmPortUpstream | SshUpstream


@attrs.frozen(kw_only=True)
class Profile:
    """A whole ``profile.toml``. *file* is where it came from, *name* what its control socket is called."""

    listen: tuple[ListenAddress, ...] = (ListenAddress("127.0.0.1", 28881),)
    default: str = "direct"
    allow_anonymous: bool = False
    auth: Auth | None = None
    admin: Admin | None = None
    limits: Limits = Limits()
    upstreams: dict[str, Upstream] = attrs.field(factory=dict[str, Upstream])
    routes: tuple[Rule, ...] = ()
    file: Path | None = attrs.field(default=None, metadata={"key": None})
    name: str = attrs.field(default="default", metadata={"key": None})
