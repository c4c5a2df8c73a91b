"""What the files of ``sproxy relay-server`` and ``sproxy relay-agent`` say, as typed values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from session_proxy.policy.rules import Network
from session_proxy.profile.model import (
    DAY,
    NO_SECRET,
    RELAY_ENDPOINTS_EXAMPLE,
    Admin,
    ListenAddress,
    RelayEndpoint,
    RelayMode,
    Ssh,
)
from session_proxy.profile.secret import Secret
from session_proxy.target import Target

Algorithm = Literal["EdDSA", "RS256", "HS256"]
Feature = Literal["requests", "compression", "agent-pools"]
PresetName = Literal["production", "development", "high-throughput"]

MIB = 1 << 20


@attrs.frozen(kw_only=True)
class RelayTls:
    """What the server proves who it is with. Both files are read again when they change; it speaks TLS 1.3 only.

    Attributes:
      certificate: The certificate, and those of its issuers below the root, in PEM.
      key: Its private key, in PEM, without a passphrase.

    """

    certificate: Path = attrs.field(metadata={"example": '"file:cert.pem"', "hole": Path()})
    key: Path = attrs.field(metadata={"example": '"file:key.pem"', "hole": Path()})


@attrs.frozen(kw_only=True)
class RelayJwt:
    """Which tokens are believed.

    Attributes:
      algorithms: By which of them a token may be signed; one or a list.
      keys: What verifies them: a JWKS, a key in PEM, or the secret of `HS256`. A file is read again when it changes.
      audience: Whom a token must be for.
      revoked: A file that names the tokens that do not count any more, one a line, by their `jti`, or the SHA-256 of
          the whole token where it has none. It is read again when it changes.

    """

    algorithms: tuple[Algorithm, ...] = ("EdDSA",)
    keys: Secret = attrs.field(metadata={"example": '"file:jwks.json"', "hole": NO_SECRET})
    audience: str = "session-proxy"
    revoked: Path | None = attrs.field(default=None, metadata={"example": '"file:revoked.txt"'})


NO_LISTEN = ListenAddress("", 0)

NO_JWT = RelayJwt(keys=NO_SECRET)


@attrs.frozen(kw_only=True)
class RelayStore:
    """Where servers keep what they have to agree about: limits, revocations, sessions, and which agents there are.

    Attributes:
      redis: The Redis that servers behind one balancer share, and workers. Absent, there is one server, and its memory
          does.
      prefix: What all our keys in it begin with.

    """

    redis: Secret | None = attrs.field(default=None, metadata={"example": '"redis://127.0.0.1:6379/0"'})
    prefix: str = "sproxy:"


@attrs.frozen(kw_only=True)
class RelayCluster:
    """How the servers that share a `store` reach each other, for clients whose agent is linked to another server.

    They speak TLS 1.3, and both ends show a certificate. Whoever has one of `ca` is believed about users: it should be
    an authority for these servers alone. With several `workers`, each has a port of its own in `listen` and `address`:
    the first has that which is written, and each other one the next.

    Attributes:
      listen: Where the other servers come in: not through a balancer, and from nowhere else.
      address: What they dial. Absent, it is `listen`. The certificate has to be for it.
      certificate: This server's certificate, and those of its issuers below the root, in PEM.
      key: Its private key, in PEM, without a passphrase.
      ca: The authority of the servers' certificates, in PEM.

    """

    listen: ListenAddress = attrs.field(metadata={"example": '"10.0.0.5:3003"', "hole": NO_LISTEN})
    address: Target | None = attrs.field(default=None, metadata={"example": '"relay-1.internal:3003"'})
    certificate: Path = attrs.field(metadata={"example": '"file:cluster.pem"', "hole": Path()})
    key: Path = attrs.field(metadata={"example": '"file:cluster-key.pem"', "hole": Path()})
    ca: Path = attrs.field(metadata={"example": '"file:cluster-ca.pem"', "hole": Path()})


@attrs.frozen(kw_only=True)
class RelayAudit:
    """The log of who did what, in which each line seals the one before (`sproxy relay-audit verify`).

    Attributes:
      file: Where it is appended to; its folder has to be there.

    """

    file: Path = attrs.field(metadata={"example": '"audit.jsonl"', "hole": Path()})


@attrs.frozen(kw_only=True)
class RelayTracing:
    """Spans of connections, streams and requests, for a collector of OpenTelemetry (OTLP over HTTP).

    Attributes:
      endpoint: The collector; spans go to its `/v1/traces`.
      share: Which part of the connections is traced, with all that comes over them.

    """

    endpoint: str = attrs.field(metadata={"example": '"http://127.0.0.1:4318"', "hole": ""})
    share: float = attrs.field(default=1.0, metadata={"minimum": 0, "maximum": 1})


@attrs.frozen(kw_only=True)
class TierConfig:
    """What the users of one tier may do, each of them. The tier stands in the token.

    Attributes:
      requests_per_minute: Requests, and connections to the relay, in a minute.
      opens_per_second: Streams that may be opened in a second.
      connections: Connections to the relay at a time, of clients and agents.
      sessions: Sessions between clients and agents at a time.
      streams: Streams at a time.
      ssh_connections: The relay's SSH connections at a time, with `mode = "relay-ssh"`.
      modes: Who may speak SSH with the agent's machine; one or a list.
      features: What else may be used; one or a list, `[]` for nothing.

    """

    requests_per_minute: float = attrs.field(default=100.0, metadata={"minimum": 1, "maximum": 1_000_000_000})
    opens_per_second: float = attrs.field(default=50.0, metadata={"minimum": 1, "maximum": 1_000_000_000})
    connections: int = attrs.field(default=10, metadata={"minimum": 1, "maximum": 1_000_000})
    sessions: int = attrs.field(default=10, metadata={"minimum": 1, "maximum": 1_000_000})
    streams: int = attrs.field(default=256, metadata={"minimum": 1, "maximum": 1_000_000})
    ssh_connections: int = attrs.field(default=3, metadata={"minimum": 1, "maximum": 3})
    modes: tuple[RelayMode, ...] = ("end-to-end",)
    features: tuple[Feature, ...] = attrs.field(default=("requests",), metadata={"empty": True})


NO_SSH = Ssh()


@attrs.frozen(kw_only=True)
class RelayUser:
    """A user for whom the relay itself logs in, with `mode = "relay-ssh"`.

    Attributes:
      ssh: As whom, and with which key; without `port`, since the agent's service has one.

    """

    ssh: Ssh = attrs.field(metadata={"example": '{ user = "me", key = "file:alice.key" }', "hole": NO_SSH})


@attrs.frozen(kw_only=True)
class RelayPool:
    """The relay's SSH connections for users, with `mode = "relay-ssh"`: how they are kept, in seconds.

    Attributes:
      warm: How many each user who has a session has at least, so that the first stream does not wait.
      idle: A connection beyond those that has had no stream for this long is closed.
      check: How often each is asked whether it still answers.
      compression: Compresses what goes through them, which pays on slow links only.

    """

    warm: int = attrs.field(default=1, metadata={"minimum": 0, "maximum": 3})
    idle: float = attrs.field(default=300.0, metadata={"minimum": 1, "maximum": DAY})
    check: float = attrs.field(default=30.0, metadata={"minimum": 1, "maximum": DAY})
    compression: bool = False


@attrs.frozen(kw_only=True)
class RelayBreaker:
    """When the relay stops trying a destination for a user, with `mode = "relay-ssh"`.

    Attributes:
      failures: So many in a row stop it.
      recovery: For how many seconds.
      trials: How many attempts are let through at a time after that, until one of them tells how it stands.

    """

    failures: int = attrs.field(default=5, metadata={"minimum": 1, "maximum": 10_000})
    recovery: float = attrs.field(default=60.0, metadata={"minimum": 0.1, "maximum": DAY})
    trials: int = attrs.field(default=3, metadata={"minimum": 1, "maximum": 10_000})


@attrs.frozen(kw_only=True)
class RelayLimits:
    """Bounds of the server: numbers, bytes, and seconds.

    Attributes:
      connections: Connections at a time, of everybody; those beyond are closed at once.
      memory: What may wait in memory to be passed on, for all of them together.
      upgrades_per_minute: Connections that may come from one address in a minute; IPv6 addresses count by their /64.
      upgrade_burst: How many of them at once.
      handshake: How long somebody may take to come through TLS and to say who it is.
      heartbeat: How often each connection is asked for a sign of life.
      silence: A connection of which nothing was heard for this long is lost.
      grace: How long a session may be without a connection before it is given up, with `mode = "relay-ssh"`.
      drain: How long connections may go on after SIGTERM.

    """

    connections: int = attrs.field(default=10_000, metadata={"minimum": 1, "maximum": 1_000_000})
    memory: int = attrs.field(default=512 * MIB, metadata={"minimum": MIB, "maximum": 1 << 40})
    upgrades_per_minute: float = attrs.field(default=300.0, metadata={"minimum": 1, "maximum": 1_000_000_000})
    upgrade_burst: int = attrs.field(default=100, metadata={"minimum": 1, "maximum": 1_000_000})
    handshake: float = attrs.field(default=10.0, metadata={"minimum": 0.1, "maximum": DAY})
    heartbeat: float = attrs.field(default=30.0, metadata={"minimum": 0.1, "maximum": DAY})
    silence: float = attrs.field(default=40.0, metadata={"minimum": 0.1, "maximum": DAY})
    grace: float = attrs.field(default=120.0, metadata={"minimum": 0, "maximum": DAY})
    drain: float = attrs.field(default=10.0, metadata={"minimum": 0, "maximum": DAY})


@attrs.frozen(kw_only=True)
class RelayServer:
    """A whole ``relay.toml``.

    *file* is where it came from, *name* what its control socket is called.

    Attributes:
      listen: Where clients and agents come in: one port for WebSockets, health and readiness; one or a list.
      profile: Which defaults `limits`, `tiers` and `pool` have; what this file says overrides them, key by key.
      workers: Processes that serve together, each on a core of its own. More than one need `store.redis`.
      trusted_proxies: Networks of the balancers that are believed about whose connection it is (`X-Forwarded-For`);
          one or a list.
      proxy_protocol: Those balancers begin each connection with a header of the PROXY protocol (version 1 or 2).
      tls: The certificate. May be left out where only this machine, or a balancer of `trusted_proxies`, gets in.
      jwt: Which tokens are believed.
      admin: The admin listener; absent, there is none.
      metrics_token: Who presents it (`Authorization: Bearer`) gets the metrics on the public port, too.
      store: Where servers keep what they have to agree about.
      cluster: How servers that share a store reach each other.
      audit: The audit log; absent, there is none.
      tracing: Where spans are sent; absent, nowhere.
      tiers: What users may do, by the tier in their token. `free` is also for tokens without one, or with an unknown.
      users: Users for whom the relay itself logs in, by name.
      pool: The relay's SSH connections.
      breaker: When the relay stops trying a destination.
      limits: Bounds of the server.
      state: The folder for what it remembers over a restart. Absent, `$XDG_STATE_HOME/session-proxy`.

    """

    listen: tuple[ListenAddress, ...] = attrs.field(
        default=(ListenAddress("0.0.0.0", 3001),),  # noqa: S104
        metadata={"example": '"0.0.0.0:3001"'},
    )
    profile: PresetName = "production"
    workers: int = attrs.field(default=1, metadata={"minimum": 1, "maximum": 64})
    trusted_proxies: tuple[Network, ...] = attrs.field(default=(), metadata={"empty": True})
    proxy_protocol: bool = False
    tls: RelayTls | None = None
    jwt: RelayJwt = attrs.field(metadata={"example": '{ keys = "file:jwks.json" }', "hole": NO_JWT})
    admin: Admin | None = None
    metrics_token: Secret | None = attrs.field(default=None, metadata={"example": '"file:metrics-token"'})
    store: RelayStore = RelayStore()
    cluster: RelayCluster | None = None
    audit: RelayAudit | None = None
    tracing: RelayTracing | None = None
    tiers: dict[str, TierConfig] = attrs.field(factory=dict[str, TierConfig])
    users: dict[str, RelayUser] = attrs.field(factory=dict[str, RelayUser])
    pool: RelayPool = RelayPool()
    breaker: RelayBreaker = RelayBreaker()
    limits: RelayLimits = RelayLimits()
    state: Path | None = attrs.field(default=None, metadata={"example": '"/var/lib/session-proxy"'})
    file: Path | None = attrs.field(default=None, metadata={"key": None})
    name: str = attrs.field(default="relay", metadata={"key": None})


@attrs.frozen(kw_only=True)
class RelayAgentLimits:
    """Bounds of an agent: numbers, and seconds.

    Attributes:
      streams: Streams of one session at a time.
      connect: How long reaching a service may take.
      grace: How long a session may be without a connection before it is given up.
      heartbeat: How often the relay is asked for a sign of life.
      silence: A relay of which nothing was heard for this long is lost.
      drain: How long streams may go on after SIGTERM.

    """

    streams: int = attrs.field(default=1024, metadata={"minimum": 1, "maximum": 1_000_000})
    connect: float = attrs.field(default=10.0, metadata={"minimum": 0.1, "maximum": DAY})
    grace: float = attrs.field(default=120.0, metadata={"minimum": 0, "maximum": DAY})
    heartbeat: float = attrs.field(default=30.0, metadata={"minimum": 0.1, "maximum": DAY})
    silence: float = attrs.field(default=40.0, metadata={"minimum": 0.1, "maximum": DAY})
    drain: float = attrs.field(default=10.0, metadata={"minimum": 0, "maximum": DAY})


@attrs.frozen(kw_only=True)
class RelayAgent:
    """A whole ``agent.toml``.

    *file* is where it came from, *control* what its control socket is called.

    Attributes:
      name: What the user's clients call this agent. Agents of one name share the work where the tier has `agent-pools`;
          else the one that connected last has it.
      token: Says whose agent it is: a JWT, as `sproxy relay-token` issues them. It is read again before it expires.
      endpoints: The relay servers, one or a list; any of them has to do.
      ca: Certificates (PEM) of authorities that are believed, too, about the relay servers.
      services: What may be reached here, by name, at least one: clients get to nothing else.
      admin: The admin listener; absent, there is none.
      limits: Bounds of the agent.
      state: The folder for what it remembers over a restart. Absent, `$XDG_STATE_HOME/session-proxy`.

    """

    name: str = attrs.field(metadata={"example": '"nas"', "hole": ""})
    token: Secret = attrs.field(metadata={"example": '"file:token"', "hole": NO_SECRET})
    endpoints: tuple[RelayEndpoint, ...] = attrs.field(metadata={"example": RELAY_ENDPOINTS_EXAMPLE})
    ca: Path | None = attrs.field(default=None, metadata={"example": '"ca.pem"'})
    services: dict[str, Target] = attrs.field(
        factory=dict[str, Target], metadata={"example": '{ ssh = "127.0.0.1:22" }'}
    )
    admin: Admin | None = None
    limits: RelayAgentLimits = RelayAgentLimits()
    state: Path | None = attrs.field(default=None, metadata={"example": '"/var/lib/session-proxy"'})
    file: Path | None = attrs.field(default=None, metadata={"key": None})
    control: str = attrs.field(default="agent", metadata={"key": None})
