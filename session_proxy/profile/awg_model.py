"""What the files of ``sproxy awg-server`` and ``sproxy awg-client`` say, as typed values."""

from __future__ import annotations

from pathlib import Path

import attrs

from awg_obfs.policy import EVERYWHERE, INWARD
from awg_obfs.protocol.parameters import DEFAULT, Parameters
from session_proxy.policy.rules import Network
from session_proxy.profile.model import (
    DAY,
    LARGEST_MTU,
    NO_AUTH,
    NO_SECRET,
    NO_TARGET,
    SMALLEST_MTU,
    Admin,
    Auth,
    AwgUpstream,
    Limits,
    ListenAddress,
    Profile,
)
from session_proxy.profile.secret import Secret
from session_proxy.target import Target

# What the one upstream of a client is called: in its log, its metrics and ``sproxy status``.
SERVER = "server"

PORT_LIMITS = Limits()

KEY_EXAMPLE = '"z2lwsDWQ1vNYoVoCPBuYYBNwPwAxbq+OVFp5D7IbZGY="'


@attrs.frozen(kw_only=True)
class AwgPeer:
    """Who may connect. Nobody else gets an answer.

    Attributes:
      name: What it is called in logs, metrics and `sproxy status`.
      public_key: Its key, in base64, as `awg pubkey` prints it.
      preshared_key: One more secret that both sides share, in case public keys are broken one day.
      conf: Lines of an AmneziaWG `.conf` that have no effect here, for `sproxy awg-import --export`.

    """

    name: str = attrs.field(metadata={"example": '"laptop"', "hole": ""})
    public_key: Secret = attrs.field(metadata={"example": KEY_EXAMPLE, "public": True, "hole": NO_SECRET})
    preshared_key: Secret | None = attrs.field(default=None, metadata={"example": '"file:psk"'})
    conf: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class AwgConf:
    """Lines of an AmneziaWG ``.conf`` that have no effect here, for ``sproxy awg-import --export``.

    Attributes:
      interface: Lines of its `[Interface]`, such as `"Address = 10.8.0.2/32"`.
      peer: Lines of its `[Peer]`, such as `"AllowedIPs = 0.0.0.0/0"`.

    """

    interface: tuple[str, ...] = ()
    peer: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class AwgPolicy:
    """Where clients may go. Names are looked up first: it is addresses that are allowed and denied.

    Attributes:
      allow: Networks that may be reached; one or a list.
      deny: Networks that may not, unless a network of `allow` that is narrower, or the same, holds the address.
          The default has everything that is not the Internet: loopback, link-local, private and metadata
          addresses. Where it has loopback, the server's own addresses are denied, too, each as a network of
          its own. `[]` denies nothing.

    """

    allow: tuple[Network, ...] = attrs.field(default=EVERYWHERE, metadata={"empty": True})
    deny: tuple[Network, ...] = attrs.field(default=INWARD, metadata={"empty": True})


@attrs.frozen(kw_only=True)
class AwgLimits:
    """Bounds of the server: numbers, and seconds.

    Attributes:
      sessions: Clients at the same time.
      streams: Connections of one client at the same time.
      associations: UDP associations of one client at the same time.
      opens: Connections and UDP associations that one client may open in a second.
      connect: How long reaching a destination may take.
      handshake: How long a client that has connected may take to begin, and a connection to say where it goes.
      idle: A connection, or a UDP association, on which nothing moved for this long is closed.
      drain: How long open connections may go on after SIGTERM.

    """

    sessions: int = attrs.field(default=1024, metadata={"minimum": 1, "maximum": 1_000_000})
    streams: int = attrs.field(default=512, metadata={"minimum": 1, "maximum": 1_000_000})
    associations: int = attrs.field(default=128, metadata={"minimum": 1, "maximum": 1_000_000})
    opens: float = attrs.field(default=500.0, metadata={"minimum": 1, "maximum": 1_000_000})
    connect: float = attrs.field(default=30.0, metadata={"minimum": 0.1, "maximum": DAY})
    handshake: float = attrs.field(default=10.0, metadata={"minimum": 0.1, "maximum": DAY})
    idle: float = attrs.field(default=300.0, metadata={"minimum": 0.1, "maximum": 365 * DAY})
    drain: float = attrs.field(default=10.0, metadata={"minimum": 0, "maximum": DAY})


@attrs.frozen(kw_only=True)
class AwgServer:
    """A whole ``server.toml``.

    *file* is where it came from, *name* what its control socket is called.

    Attributes:
      listen: Where clients come in, on UDP.
      private_key: Ours, in base64, as `awg genkey` prints it.
      state: The folder that keeps when each peer shook hands last, so that a recorded handshake is worth nothing
          after a restart. Absent, `$XDG_STATE_HOME/session-proxy`.
      mtu: Of the path: a datagram beyond it would go in pieces, which gives it away.
      keepalive_padding: Pads keepalives with `s4` as data is. AmneziaWG of December 2025 accepts that, but does
          not do it, and so drops its own keepalives where `s4` is not 0.
      awg: How the datagrams look; `s1` to `h4` as the clients have them.
      peers: Who may connect: at least one.
      policy: Where they may go.
      limits: Bounds of the server.
      admin: The admin listener; absent, there is none.
      conf: Lines of a `.conf` that have no effect here.

    """

    listen: ListenAddress = attrs.field(default=ListenAddress("0.0.0.0", 443))  # noqa: S104
    private_key: Secret = attrs.field(metadata={"example": '"file:server.key"', "hole": NO_SECRET})
    state: Path | None = attrs.field(default=None, metadata={"example": '"/var/lib/session-proxy"'})
    mtu: int = attrs.field(default=1500, metadata={"minimum": SMALLEST_MTU, "maximum": LARGEST_MTU})
    keepalive_padding: bool = False
    awg: Parameters = DEFAULT
    peers: tuple[AwgPeer, ...] = ()
    policy: AwgPolicy = AwgPolicy()
    limits: AwgLimits = AwgLimits()
    admin: Admin | None = None
    conf: AwgConf = AwgConf()
    file: Path | None = attrs.field(default=None, metadata={"key": None})
    name: str = attrs.field(default="server", metadata={"key": None})


@attrs.frozen(kw_only=True)
class AwgClient:
    """A whole ``client.toml``: a local proxy port, straight into one server.

    Attributes:
      listen: SOCKS5 and HTTP proxy on one port, for those who present the credentials of `[auth]`.
      endpoint: Where the server listens, on UDP.
      private_key: Ours, in base64, as `awg genkey` prints it.
      public_key: The server's.
      preshared_key: One more secret that both sides share, in case public keys are broken one day.
      mtu: Of the path: a datagram beyond it would go in pieces, which gives it away.
      keepalive_padding: Pads keepalives with `s4` as data is. AmneziaWG of December 2025 accepts that, but does
          not do it, and so drops its own keepalives where `s4` is not 0.
      auth: The credentials that every client of the proxy port must present.
      awg: How the datagrams look; `s1` to `h4` as the server has them.
      admin: The admin listener; absent, there is none.
      limits: Bounds of the proxy port.
      conf: Lines of a `.conf` that have no effect here.

    """

    listen: tuple[ListenAddress, ...] = attrs.field(
        default=(ListenAddress("127.0.0.1", 1080),), metadata={"example": '"127.0.0.1:1080"'}
    )
    endpoint: Target = attrs.field(metadata={"example": '"vpn.example.com:443"', "hole": NO_TARGET})
    private_key: Secret = attrs.field(metadata={"example": '"file:client.key"', "hole": NO_SECRET})
    public_key: Secret = attrs.field(metadata={"example": KEY_EXAMPLE, "public": True, "hole": NO_SECRET})
    preshared_key: Secret | None = attrs.field(default=None, metadata={"example": '"file:psk"'})
    mtu: int = attrs.field(default=1500, metadata={"minimum": SMALLEST_MTU, "maximum": LARGEST_MTU})
    keepalive_padding: bool = False
    auth: Auth = attrs.field(
        metadata={"example": '{ user = "app", pass = "env:SOCKS_PASS" }', "hole": NO_AUTH}
    )
    awg: Parameters = DEFAULT
    admin: Admin | None = None
    limits: Limits = PORT_LIMITS
    conf: AwgConf = AwgConf()

    def upstream(self) -> AwgUpstream:
        """Return the server as an upstream of a profile."""
        return AwgUpstream(
            endpoint=self.endpoint,
            private_key=self.private_key,
            public_key=self.public_key,
            preshared_key=self.preshared_key,
            # A laptop starts before its network does: the port is there, and says why nothing gets through.
            startup="background",
            mtu=self.mtu,
            keepalive_padding=self.keepalive_padding,
            awg=self.awg,
        )

    def profile(self, file: Path | None, name: str) -> Profile:
        """Return the profile that does what this says: everything through the server."""
        return Profile(
            listen=self.listen,
            default=SERVER,
            auth=self.auth,
            admin=self.admin,
            limits=self.limits,
            upstreams={SERVER: self.upstream()},
            file=file,
            name=name,
        )
