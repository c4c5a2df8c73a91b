"""Write ``server.toml`` and ``client.toml``: a new pair that fits, or what an AmneziaWG ``.conf`` says."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import attrs
import tomli_w

from awg_obfs.protocol.conf import ConfFile, ConfInterface, ConfPeer, Kept
from awg_obfs.protocol.keys import (
    key_from_text,
    key_to_text,
    new_preshared_key,
    new_private_key,
    public_key_of,
)
from awg_obfs.protocol.lint import DEFAULT_PATH_MTU, Finding, Severity, findings
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.presets import Preset, random_parameters, server_side
from awg_obfs.protocol.randomness import Randomness
from session_proxy.errors import Problem, ProfileError
from session_proxy.profile.addresses import is_loopback
from session_proxy.profile.awg_losses import imported_name
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.awg_mtu import PathMtu, path_mtu_of, with_mtu
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.secret import Secret
from session_proxy.target import Target

Toml = dict[str, "Toml"] | list["Toml"] | str | int | bool

LISTEN = "127.0.0.1:1080"
USER = "app"

# 144 bits, in letters that need no quoting anywhere.
PASSWORD_BYTES = 18

CONF_PORT = 51820
KEEPALIVE = "PersistentKeepalive"


@attrs.frozen
class Pair:
    """The texts of two files that fit each other. Both hold keys."""

    server: str = attrs.field(repr=False)
    client: str = attrs.field(repr=False)


def new_pair(endpoint: Target, preset: Preset, random: Randomness) -> Pair:
    """Return files for a server that clients reach at *endpoint*, and for one client, with keys of their own.

    Junk and signature packets are the client's: it is who begins.
    """
    parameters = random_parameters(random, preset)
    server_key, client_key = new_private_key(random), new_private_key(random)
    shared = key_to_text(new_preshared_key(random))
    server: dict[str, Toml] = {
        "listen": str(_listen_for(endpoint)),
        "private_key": key_to_text(server_key),
        "keepalive_padding": True,
        "awg": _table(server_side(parameters)),
        "peers": [
            {
                "name": "client",
                "public_key": key_to_text(public_key_of(client_key)),
                "preshared_key": shared,
            }
        ],
    }
    client: dict[str, Toml] = {
        "listen": LISTEN,
        "endpoint": str(endpoint),
        "private_key": key_to_text(client_key),
        "public_key": key_to_text(public_key_of(server_key)),
        "preshared_key": shared,
        "keepalive_padding": True,
        "auth": _new_auth(random),
        "awg": _table(parameters),
    }
    return Pair(
        _text("Run it with: sproxy awg-server server.toml", server),
        _text("Run it with: sproxy awg-client client.toml", client),
    )


def _listen_for(endpoint: Target) -> ListenAddress:
    """Return where a server listens that clients find at *endpoint*, whichever address of it that is."""
    here = ListenAddress(endpoint.host, endpoint.port)
    if is_loopback(here):
        # Nobody else could use it, so nobody else gets to see the port.
        return here
    address = endpoint.address
    everywhere = "::" if address is not None and address.version == 6 else "0.0.0.0"  # noqa: S104
    return ListenAddress(everywhere, endpoint.port)


def import_conf(conf: ConfFile, random: Randomness) -> str:
    """Return the ``client.toml`` or ``server.toml`` that does what *conf* says.

    It is a client's where its one peer has an endpoint, and a server's where none has. *random* makes the
    password that a client's proxy port asks for.

    Raises:
      ProfileError: it is neither, or lacks what either needs.

    """
    interface = conf.interface
    if interface.private_key is None:
        raise _refused("[Interface] has no PrivateKey", "add it: without a key nobody can be spoken to")
    if not conf.peers:
        raise _refused("there is no [Peer]", "add the server, or the clients")
    refusals = [
        Problem(fault.key.capitalize(), fault.text, fault.proposal)
        for fault in _findings(conf)
        if fault.severity is Severity.REFUSE
    ]
    if refusals:
        raise ProfileError(None, refusals)
    servers = [peer for peer in conf.peers if peer.endpoint]
    if not servers:
        return _text("Run it with: sproxy awg-server FILE", _server_of(conf))
    if len(conf.peers) > 1:
        raise _refused(
            f"{len(servers)} of {len(conf.peers)} peers have an Endpoint",
            "a client has one server, and a server's peers have no Endpoint: keep what is meant",
        )
    return _text("Run it with: sproxy awg-client FILE", _client_of(conf, random))


def import_warnings(conf: ConfFile) -> tuple[str, ...]:
    """Return what was read of *conf* and works otherwise than it seems, each in one line."""
    doubts = (str(doubt) for doubt in _findings(conf) if doubt.severity is Severity.WARN)
    mtu = _path_mtu(conf).warning
    return (*conf.warnings, *([mtu] if mtu else []), *doubts)


def export_conf(file: AwgClient | AwgServer) -> ConfFile:
    """Return *file* as an AmneziaWG ``.conf``, with what was kept when it was imported from one."""
    interface = ConfInterface(
        private_key=key_from_text(file.private_key.reveal()),
        parameters=file.awg,
        kept=with_mtu(_kept(file.conf.interface), file.mtu, file.awg.s4, ipv6=_is_over_ipv6(file)),
    )
    if isinstance(file, AwgServer):
        peers = [_peer(peer.public_key, peer.preshared_key, peer.conf) for peer in file.peers]
        return ConfFile(attrs.evolve(interface, listen_port=file.listen.port), tuple(peers))
    port = next((int(text) for name, text in interface.kept if name == "ListenPort" and text.isdecimal()), 0)
    kept = tuple(line for line in interface.kept if line[0] != "ListenPort")
    peer = _peer(file.public_key, file.preshared_key, file.conf.peer)
    return ConfFile(
        attrs.evolve(interface, listen_port=port, kept=kept),
        (attrs.evolve(peer, endpoint=str(file.endpoint)),),
    )


def _server_of(conf: ConfFile) -> dict[str, Toml]:
    interface = conf.interface
    return {
        "listen": f"0.0.0.0:{interface.listen_port or CONF_PORT}",
        **_own_side(conf),
        "peers": [
            {
                "name": imported_name(position),
                **_other_side(peer),
                **_unless_empty("conf", _lines(peer)),
            }
            for position, peer in enumerate(conf.peers)
        ],
        **_unless_empty("conf", _unless_empty("interface", _kept_lines(interface.kept))),
    }


def _client_of(conf: ConfFile, random: Randomness) -> dict[str, Toml]:
    interface, (peer,) = conf.interface, conf.peers
    kept = interface.kept
    if interface.listen_port:
        kept = (("ListenPort", str(interface.listen_port)), *kept)
    lines = {
        **_unless_empty("interface", _kept_lines(kept)),
        **_unless_empty("peer", _lines(peer)),
    }
    return {
        "listen": LISTEN,
        "endpoint": peer.endpoint,
        **_own_side(conf),
        **_other_side(peer),
        "auth": _new_auth(random),
        **_unless_empty("conf", lines),
    }


def _own_side(conf: ConfFile) -> dict[str, Toml]:
    interface = conf.interface
    assert interface.private_key is not None, "import_conf has looked"
    mtu = _path_mtu(conf).value
    own: dict[str, Toml] = {} if mtu == DEFAULT_PATH_MTU else {"mtu": mtu}
    return {
        "private_key": key_to_text(interface.private_key),
        **own,
        **_unless_empty("awg", _table(interface.parameters)),
    }


def _findings(conf: ConfFile) -> tuple[Finding, ...]:
    parameters = conf.interface.parameters
    return findings(parameters, path_mtu=_path_mtu(conf).value, ipv6=_calls_ipv6(conf))


def _path_mtu(conf: ConfFile) -> PathMtu:
    interface = conf.interface
    return path_mtu_of(interface.kept, interface.parameters.s4, ipv6=_calls_ipv6(conf))


def _calls_ipv6(conf: ConfFile) -> bool:
    # Of a name nothing is known; with IPv4's shorter header the path's MTU is the smaller one, which always works.
    return any(peer.endpoint.startswith("[") for peer in conf.peers)


def _is_over_ipv6(file: AwgClient | AwgServer) -> bool:
    return isinstance(file, AwgClient) and ":" in file.endpoint.host


def _other_side(peer: ConfPeer) -> dict[str, Toml]:
    shared: dict[str, Toml] = (
        {} if peer.preshared_key is None else {"preshared_key": key_to_text(peer.preshared_key)}
    )
    return {"public_key": key_to_text(peer.public_key), **shared}


def _lines(peer: ConfPeer) -> list[Toml]:
    keepalive = ((KEEPALIVE, str(peer.persistent_keepalive)),) if peer.persistent_keepalive else ()
    return _kept_lines((*peer.kept, *keepalive))


def _kept_lines(kept: Kept) -> list[Toml]:
    return [f"{name} = {value}" for name, value in kept]


def _kept(lines: Iterable[str]) -> Kept:
    pairs = (line.partition("=") for line in lines)
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


def _peer(public_key: Secret, preshared_key: Secret | None, lines: Iterable[str]) -> ConfPeer:
    kept = _kept(lines)
    keepalive = next((int(text) for name, text in kept if name == KEEPALIVE and text.isdecimal()), 0)
    return ConfPeer(
        key_from_text(public_key.reveal()),
        None if preshared_key is None else key_from_text(preshared_key.reveal()),
        persistent_keepalive=keepalive,
        kept=tuple(line for line in kept if line[0] != KEEPALIVE),
    )


def _new_auth(random: Randomness) -> dict[str, Toml]:
    return {"user": USER, "pass": base64.urlsafe_b64encode(random(PASSWORD_BYTES)).decode()}


def _table(parameters: Parameters) -> dict[str, Toml]:
    return {**parameters.as_mapping()}


def _unless_empty(key: str, value: dict[str, Toml] | list[Toml]) -> dict[str, Toml]:
    return {key: value} if value else {}


def _text(first: str, document: Mapping[str, Toml]) -> str:
    # TOML wants a file's plain keys before its tables.
    plain = {key: value for key, value in document.items() if not _is_table(value)}
    tables = {key: value for key, value in document.items() if _is_table(value)}
    return f"# {first}\n# It holds keys: keep it to yourself.\n" + tomli_w.dumps({**plain, **tables})


def _is_table(value: Toml) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, dict) for item in value)
    )


def _refused(message: str, fix: str) -> ProfileError:
    return ProfileError(None, [Problem("", message, fix)])
