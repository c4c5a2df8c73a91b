"""What of a ``server.toml`` or ``client.toml`` an AmneziaWG ``.conf`` has no words for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import attrs

from session_proxy.profile.awg_model import AwgClient, AwgLimits, AwgPolicy, AwgServer
from session_proxy.profile.model import Limits


def export_losses(file: AwgClient | AwgServer) -> Iterator[str]:
    """Yield one line for each thing in *file* that its ``.conf`` does without, with the key's path."""
    if isinstance(file, AwgServer):
        yield from _server_losses(file)
    else:
        yield "listen: is left out, for AmneziaWG has no proxy port"
        yield "auth: is left out, for AmneziaWG has no proxy port"
    if file.keepalive_padding:
        drops = ", and so with s4 above 0 keepalives are dropped" if file.awg.s4 else ""
        yield f"keepalive_padding: is left out, for AmneziaWG has none{drops}"
    default = AwgLimits() if isinstance(file, AwgServer) else Limits()
    for key in attrs.fields_dict(type(default)):
        if getattr(file.limits, key) != getattr(default, key):
            yield f"limits.{key}: is left out, for AmneziaWG has no such bound"
    if file.admin is not None:
        yield "admin: is left out, for AmneziaWG has no admin listener"


def _server_losses(server: AwgServer) -> Iterator[str]:
    if not _is_wildcard(server.listen.host):
        yield f"listen: the host {server.listen.host} is left out, for AmneziaWG listens on every address"
    if server.state is not None:
        yield "state: is left out, for AmneziaWG remembers no handshakes over a restart"
    for position, peer in enumerate(server.peers):
        # What an import would call it again is not lost.
        if peer.name != imported_name(position):
            yield f"peers[{position}].name: {peer.name!r} is left out, for AmneziaWG's peers have no names"
    for key in attrs.fields_dict(AwgPolicy):
        if getattr(server.policy, key) != getattr(AwgPolicy(), key):
            yield f"policy.{key}: is left out, for AmneziaWG lets peers go anywhere; use a firewall there"


def imported_name(position: int) -> str:
    """Return what the peer at *position* of a ``.conf`` is called in the file that is made of it."""
    return f"client-{position + 1}"


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
