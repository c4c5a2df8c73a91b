"""What a profile says, as typed values. `session_proxy.profile.loading` makes them from files.

Every default that a person can rely on stands here, and only here; the reference in ``docs/`` is generated
from these classes and the "Attributes" of their docstrings. A field's metadata tell the loader what its type
cannot: the *key* in the file where it differs (`None`: not a key), an *example*, the *minimum* and *maximum*,
that text is a *path* (but for some *keywords*), that a list may be *empty*, that a secret may be *public* after
all, or is *renewed* while it is used, that it *refers* to the names in another table, and the *hole* that stands for a
needed value which cannot be read, so that the others can be checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from awg_obfs.protocol.parameters import DEFAULT, Parameters
from session_proxy.policy.rules import Rule
from session_proxy.profile.secret import Secret
from session_proxy.target import Target

# What checks get in place of a needed value that was noted as faulty; nothing else ever does.
NO_SECRET = Secret("literal", "", "")
NO_TARGET = Target("", 0)

Startup = Literal["required", "background"]

INSTANCE_CONNECT = "instance-connect"

# A day: a limit of seconds beyond this was meant as milliseconds, or not at all.
DAY = 86400


@attrs.frozen
class ListenAddress:
    """An address to listen on; port 0 means any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen(kw_only=True)
class Auth:
    """The credentials that clients of the front door must present (RFC 1929, HTTP Basic).

    Attributes:
      user: The user's name.
      password: The password.

    """

    user: str = attrs.field(metadata={"example": '"admin"', "hole": ""})
    password: Secret = attrs.field(
        metadata={"key": "pass", "example": '"env:SPROXY_PASS"', "hole": NO_SECRET}
    )


NO_AUTH = Auth(user="", password=NO_SECRET)


@attrs.frozen(kw_only=True)
class Admin:
    """Where health, metrics and the PAC file are served.

    Attributes:
      listen: Serves `/healthz`, `/readyz`, `/metrics` and `/proxy.pac`.

    """

    listen: ListenAddress = attrs.field(metadata={"example": '"127.0.0.1:28890"'})


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of the front door: a number of connections, and seconds.

    Attributes:
      connections: Clients at the same time; those beyond are closed at once.
      handshake: How long a client may take to say where it wants to go.
      connect: How long reaching a destination may take, through all upstreams of its route together.
      idle: A connection on which nothing moved for this long is closed.
      drain: How long open connections may go on after SIGTERM.

    """

    connections: int = attrs.field(default=4096, metadata={"minimum": 1, "maximum": 1_000_000})
    handshake: float = attrs.field(default=10.0, metadata={"minimum": 0.1, "maximum": DAY})
    connect: float = attrs.field(default=30.0, metadata={"minimum": 0.1, "maximum": DAY})
    idle: float = attrs.field(default=3600.0, metadata={"minimum": 0.1, "maximum": 365 * DAY})
    drain: float = attrs.field(default=10.0, metadata={"minimum": 0, "maximum": DAY})


@attrs.frozen(kw_only=True)
class Failover:
    """How routes that list several upstreams go from one to another.

    Attributes:
      back_after: How long an upstream that was down has to be ready before new connections go back to it from those
          behind it, in seconds.

    """

    back_after: float = attrs.field(default=60.0, metadata={"minimum": 0, "maximum": DAY})


@attrs.frozen(kw_only=True)
class Aws:
    """Which AWS credentials to use: a profile, inline keys, or boto3's own chain where nothing is said.

    Attributes:
      profile: A profile of `~/.aws/config`.
      region: The region of the instances; optional with a profile that names one, required with inline keys.
      access_key: An access key id, instead of a profile.
      secret_key: Its secret.
      session_token: Where the keys are temporary ones.

    """

    profile: str | None = attrs.field(default=None, metadata={"example": '"default"'})
    region: str | None = attrs.field(default=None, metadata={"example": '"eu-west-1"'})
    access_key: Secret | None = attrs.field(default=None, metadata={"example": '"env:AWS_KEY"'})
    secret_key: Secret | None = attrs.field(default=None, metadata={"example": '"env:AWS_SECRET"'})
    session_token: Secret | None = attrs.field(default=None, metadata={"example": '"env:AWS_TOKEN"'})


@attrs.frozen(kw_only=True)
class Ssh:
    """How to log in by SSH and which host keys to accept.

    Attributes:
      user: Whom to log in as; absent, the user who runs sproxy.
      key: A private key's file; absent, ssh-agent is asked, then `~/.ssh/id_*` tried. `"instance-connect"`
          pushes an ephemeral key to the instance instead.
      passphrase: What the key is encrypted with.
      host_keys: `"accept-new"` records the key of a host seen for the first time; `"strict"` demands that it
          is known. A key that changed is refused by both.
      known_hosts: OpenSSH's file of host keys; instances are recorded there by their id.
      port: The port on which the instance's sshd listens.
      compression: Compresses what goes through the connection, which pays on slow links only.

    """

    user: str | None = attrs.field(default=None, metadata={"example": '"ec2-user"'})
    key: str | None = attrs.field(
        default=None, metadata={"example": '"~/.ssh/prod.pem"', "path": True, "keywords": (INSTANCE_CONNECT,)}
    )
    passphrase: Secret | None = attrs.field(default=None, metadata={"example": '"env:KEY_PASS"'})
    host_keys: Literal["accept-new", "strict"] = "accept-new"
    known_hosts: Path = Path("~/.ssh/known_hosts")
    port: int = attrs.field(default=22, metadata={"minimum": 1, "maximum": 65535})
    compression: bool = False


@attrs.frozen(kw_only=True)
class DataChannel:
    """How an SSM data channel is driven.

    Attributes:
      payload: Bytes per frame; the agent takes far more than the 1024 that it sends.
      frames_per_second: Bounds all frames, acknowledgements too; AWS cuts a client above 1000.
      resume: How long a lost WebSocket may take to come back before its session is given up.

    """

    payload: int = attrs.field(default=16384, metadata={"minimum": 256, "maximum": 65536})
    frames_per_second: int = attrs.field(default=900, metadata={"minimum": 10, "maximum": 100_000})
    resume: float = attrs.field(default=60.0, metadata={"minimum": 0, "maximum": DAY})


@attrs.frozen(kw_only=True)
class SsmUpstream:
    """SSH through AWS Session Manager (document ``AWS-StartSSHSession``).

    Attributes:
      kind: May be left out where `instances` is present.
      instances: Instance ids, `"tag:Key=Value"` or `"name:web-1"`, in failover order; one or a list.
      sessions: Most striped sessions per instance; grows from 1 while streams queue.
      startup: `"required"` ends the start where the upstream cannot be reached, `"background"` keeps trying.
          Default: required, but background where every route that names it lists another upstream too.
      aws: Which AWS credentials to use.
      ssh: How to log in.
      data_channel: How its data channels are driven.

    """

    kind: Literal["ssm"] = "ssm"
    instances: tuple[str, ...] = attrs.field(metadata={"example": '["i-0123456789abcdef0"]'})
    sessions: int = attrs.field(default=4, metadata={"minimum": 1, "maximum": 64})
    startup: Startup | None = None
    aws: Aws = Aws()
    ssh: Ssh = Ssh()
    data_channel: DataChannel = DataChannel()


@attrs.frozen(kw_only=True)
class SsmPortUpstream:
    """AWS Session Manager's own port forwarding to remote hosts: no sshd needed on the instance.

    Attributes:
      kind: Needed: without it, an upstream with `instances` is of kind `"ssm"`.
      instances: Instance ids, `"tag:Key=Value"` or `"name:web-1"`, in failover order; one or a list.
      startup: As for `ssm`.
      aws: Which AWS credentials to use.
      data_channel: How its data channels are driven.

    """

    kind: Literal["ssm-port"] = "ssm-port"
    instances: tuple[str, ...] = attrs.field(metadata={"example": '["i-0123456789abcdef0"]'})
    startup: Startup | None = None
    aws: Aws = Aws()
    data_channel: DataChannel = DataChannel()


@attrs.frozen(kw_only=True)
class SshUpstream:
    """A bastion reached by SSH over plain TCP.

    Attributes:
      kind: Needed.
      address: The bastion's sshd.
      startup: As for `ssm`.
      ssh: How to log in; without `port`, since the address has one.

    """

    kind: Literal["ssh"] = "ssh"
    address: Target = attrs.field(metadata={"example": '"bastion.example.com:22"'})
    startup: Startup | None = None
    ssh: Ssh = Ssh()


# The least that IPv6 asks of a link (RFC 8200, section 5), and what IP can say.
SMALLEST_MTU, LARGEST_MTU = 1280, 65535


@attrs.frozen(kw_only=True)
class AwgUpstream:
    """A server of ours (``sproxy awg-server``), reached by QUIC inside an AmneziaWG session.

    Attributes:
      kind: Needed.
      endpoint: Where the server listens, on UDP.
      private_key: Ours, in base64, as `awg genkey` prints it.
      public_key: The server's.
      preshared_key: One more secret that both sides share, in case public keys are broken one day.
      startup: As for `ssm`.
      mtu: Of the path: a datagram beyond it would go in pieces, which gives it away.
      keepalive_padding: Pads keepalives with `s4` as data is. AmneziaWG of December 2025 accepts that, but does
          not do it, and so drops its own keepalives where `s4` is not 0.
      awg: How its datagrams look.

    """

    kind: Literal["awg"] = "awg"
    endpoint: Target = attrs.field(metadata={"example": '"vpn.example.com:443"', "hole": NO_TARGET})
    private_key: Secret = attrs.field(metadata={"example": '"file:client.key"', "hole": NO_SECRET})
    public_key: Secret = attrs.field(
        metadata={
            "example": '"z2lwsDWQ1vNYoVoCPBuYYBNwPwAxbq+OVFp5D7IbZGY="',
            "public": True,
            "hole": NO_SECRET,
        }
    )
    preshared_key: Secret | None = attrs.field(default=None, metadata={"example": '"file:psk"'})
    startup: Startup | None = None
    mtu: int = attrs.field(default=1500, metadata={"minimum": SMALLEST_MTU, "maximum": LARGEST_MTU})
    keepalive_padding: bool = False
    awg: Parameters = DEFAULT


@attrs.frozen(kw_only=True)
class RelayEndpoint:
    """A relay server that may be used.

    Attributes:
      url: `wss://HOST[:PORT][/PATH]`; without a path, that of `sproxy relay-server`, `/api/tunnel/connect`. `ws://`
          only to this machine.
      priority: The lower, the sooner it is used; the others are for when it is down.
      weight: Among those of one priority: its share of all clients, beside the others' weights.

    """

    url: str = attrs.field(metadata={"example": '"wss://relay.example.com"', "hole": ""})
    priority: int = attrs.field(default=1, metadata={"minimum": 0, "maximum": 65535})
    weight: int = attrs.field(default=1, metadata={"minimum": 1, "maximum": 65535})


RELAY_ENDPOINTS_EXAMPLE = '[{ url = "wss://relay.example.com" }]'

RelayMode = Literal["end-to-end", "relay-ssh"]


@attrs.frozen(kw_only=True)
class RelayUpstream:
    """SSH to a machine that can only dial out, through a relay server to which its agent is connected.

    Attributes:
      kind: Needed.
      endpoints: The relay servers, one or a list; any of them has to do.
      token: Says who we are: a JWT, as `sproxy relay-token` issues them. It is read again before it expires.
      agent: Which of the user's agents; may be left out where the user has one.
      mode: Who speaks SSH with the agent's machine: we, and the relay sees ciphertext only, or the relay, with the
          key that it has for the user.
      service: Which of the agent's services speaks SSH.
      ca: Certificates (PEM) of authorities that are believed, too, about the relay servers.
      startup: As for `ssm`.
      ssh: How to log in, where we speak SSH; without `port`, since the agent's service has one.

    """

    kind: Literal["relay"] = "relay"
    endpoints: tuple[RelayEndpoint, ...] = attrs.field(metadata={"example": RELAY_ENDPOINTS_EXAMPLE})
    token: Secret = attrs.field(metadata={"example": '"file:token"', "hole": NO_SECRET, "renewed": True})
    agent: str | None = attrs.field(default=None, metadata={"example": '"nas"'})
    mode: RelayMode = "end-to-end"
    service: str = "ssh"
    ca: Path | None = attrs.field(default=None, metadata={"example": '"ca.pem"'})
    startup: Startup | None = None
    ssh: Ssh = Ssh()


Upstream = SsmUpstream | SsmPortUpstream | SshUpstream | AwgUpstream | RelayUpstream


@attrs.frozen(kw_only=True)
class Profile:
    """A whole ``profile.toml``. *file* is where it came from, *name* what its control socket is called.

    Attributes:
      listen: SOCKS5, SOCKS4/4a and HTTP proxy on one port; one or a list. Port 0 takes any free one.
      default: Where destinations go that no route matches: an upstream, `"direct"` or `"reject"`.
      allow_anonymous: Lets an address that other machines can reach go without `[auth]`.
      auth: The credentials that clients must present; absent, none.
      admin: The admin listener; absent, there is none.
      limits: Bounds of the front door.
      failover: How routes go from one upstream to another.
      upstreams: The ways out, by name.
      routes: Which destinations go where: the first that matches, in file order, decides.

    """

    listen: tuple[ListenAddress, ...] = attrs.field(
        default=(ListenAddress("127.0.0.1", 28881),), metadata={"example": '"127.0.0.1:28881"'}
    )
    default: str = attrs.field(default="direct", metadata={"refers": "upstreams"})
    allow_anonymous: bool = False
    auth: Auth | None = None
    admin: Admin | None = None
    limits: Limits = Limits()
    failover: Failover = Failover()
    upstreams: dict[str, Upstream] = attrs.field(factory=dict[str, Upstream])
    routes: tuple[Rule, ...] = ()
    file: Path | None = attrs.field(default=None, metadata={"key": None})
    name: str = attrs.field(default="default", metadata={"key": None})

    def startup_of(self, upstream: str) -> Startup:
        """Return what to do when *upstream* cannot be reached at start, by its key or by the routes.

        It is required unless every route that names it lists another way out too. The default counts as a
        route that lists it alone.
        """
        chosen = self.upstreams[upstream].startup
        if chosen is not None:
            return chosen
        naming = [rule.upstream for rule in self.routes if upstream in rule.upstream]
        spare = self.default != upstream and all(len(set(names)) > 1 for names in naming)
        return "background" if naming and spare else "required"
