"""What has to hold between the values of an AmneziaWG session, and of the files of its server and its client."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Protocol

from awg_obfs.errors import KeyFormatError
from awg_obfs.policy import INWARD
from awg_obfs.protocol.lint import Finding, Severity, findings
from awg_obfs.protocol.parameters import HEADER_KEYS, Parameters
from awg_obfs.protocol.sizes import largest_s4
from session_proxy.profile.awg_model import AwgClient, AwgPolicy, AwgServer
from session_proxy.profile.model import AwgUpstream
from session_proxy.profile.secret import Secret
from session_proxy.profile.structuring import Structurer


class Side(Protocol):
    """What either side of a session says of its datagrams."""

    @property
    def mtu(self) -> int:
        """The path's."""
        ...

    @property
    def keepalive_padding(self) -> bool:
        """Whether keepalives are padded as data is."""
        ...

    @property
    def awg(self) -> Parameters:
        """How datagrams look."""
        ...


def check_session(prefix: str, side: AwgUpstream | AwgClient, notes: Structurer) -> None:
    """Note every problem with the session of *side*; *prefix* stands before its keys, such as ``upstreams.a.``."""
    ours = _check_key(f"{prefix}private_key", side.private_key, notes)
    theirs = _check_public_key(f"{prefix}public_key", side.public_key, notes)
    if ours is not None and theirs == _public_key_of(ours):
        notes.note(f"{prefix}public_key", "belongs to private_key", "write the server's")
    if side.preshared_key is not None:
        _check_key(f"{prefix}preshared_key", side.preshared_key, notes)
    _check_parameters(prefix, side, _is_ipv6(side.endpoint.host), notes)


def check_server(server: AwgServer, notes: Structurer) -> None:
    """Note every problem between the values of *server*, which may have holes."""
    ours = _check_key("private_key", server.private_key, notes)
    if not server.peers and notes.sound("peers"):
        notes.note("peers", "is missing", "write a [[peers]] table with name and public_key for each client")
    names: set[str] = set()
    keys: dict[bytes, str] = {} if ours is None else {_public_key_of(ours): "this server"}
    for position, peer in enumerate(server.peers):
        here = notes.item("peers", position)
        key = _check_public_key(f"{here}.public_key", peer.public_key, notes)
        if key is not None and key in keys:
            notes.note(f"{here}.public_key", f"is that of {keys[key]}", "give every client a key of its own")
        elif key is not None:
            keys[key] = f"peer {peer.name!r}"
        if peer.name in names and notes.sound(f"{here}.name"):
            notes.note(f"{here}.name", f"{peer.name!r} stands twice", "give every client a name of its own")
        names.add(peer.name)
        if peer.preshared_key is not None:
            _check_key(f"{here}.preshared_key", peer.preshared_key, notes)
    _check_policy(server.policy, notes)
    _check_parameters("", server, _is_ipv6(server.listen.host), notes)


def awg_warnings(prefix: str, side: AwgUpstream | AwgClient | AwgServer) -> Iterator[str]:
    """Yield one line for each thing in *side* that works but gives the session away, or loses datagrams."""
    host = side.listen.host if isinstance(side, AwgServer) else side.endpoint.host
    for finding in _findings(side, _is_ipv6(host)):
        if finding.severity is Severity.WARN:
            yield f"{prefix}awg.{finding}"
    most = largest_s4(side.mtu, ipv6=True)
    if side.awg.s4 > most and _is_name(host):
        # With an IPv4 address in its place nothing is lost, and with an IPv6 address it is refused.
        fix = f"write s4 = {most} or less" if most else "leave s4 out"
        room = f"{side.awg.s4} leaves QUIC less than it needs over IPv6, where {host} may lead"
        yield f"{prefix}awg.s4: {room}; {fix}, or an IPv4 address"


def _check_policy(policy: AwgPolicy, notes: Structurer) -> None:
    if policy.deny == INWARD or not notes.sound("policy.allow"):
        # Nobody wrote that (or it stands for what cannot be read), and what somebody wrote to allow is allowed.
        return
    for position, network in enumerate(policy.deny):
        if network in policy.allow:
            here = notes.item("policy.deny", position)
            notes.note(here, f"{network} stands in policy.allow, too", "take it out of one of them")


def _check_parameters(prefix: str, side: Side, ipv6: bool, notes: Structurer) -> None:
    refused = [finding for finding in _findings(side, ipv6) if finding.severity is Severity.REFUSE]
    # Decided before any of them is noted, for that makes its key unsound.
    for finding in [finding for finding in refused if _is_certain(prefix, finding.key, notes)]:
        notes.note(f"{prefix}awg.{finding.key}", finding.text, finding.proposal)


def _is_certain(prefix: str, key: str, notes: Structurer) -> bool:
    """Tell whether what is found about *key* is so, whatever stands in the place of values that cannot be read."""
    needed = {f"{prefix}awg.{key}"}
    if key in HEADER_KEYS:
        needed |= {f"{prefix}awg.{header}" for header in HEADER_KEYS}
    if key == "s4":
        needed.add(f"{prefix}mtu")
    return all(map(notes.sound, needed))


def _findings(side: Side, ipv6: bool) -> tuple[Finding, ...]:
    return findings(side.awg, path_mtu=side.mtu, ipv6=ipv6, keepalive_padding=side.keepalive_padding)


def _check_key(path: str, secret: Secret, notes: Structurer) -> bytes | None:
    if not notes.sound(path):
        return None
    from awg_obfs.protocol.keys import key_from_text

    try:
        return key_from_text(secret.reveal())
    except KeyFormatError as exc:
        notes.note(path, str(exc), 'make a new pair with "sproxy awg-keygen", or copy the whole line')
        return None


def _check_public_key(path: str, secret: Secret, notes: Structurer) -> bytes | None:
    from awg_obfs.protocol.keys import is_usable_public_key

    key = _check_key(path, secret, notes)
    if key is None or is_usable_public_key(key):
        return key
    fix = 'copy the one that "awg pubkey" prints, or make a new pair with "sproxy awg-keygen"'
    notes.note(path, "is a key that nobody can have, and so no session comes up with it", fix)
    return None


def _public_key_of(key: bytes) -> bytes:
    # Its cryptography takes long to import, and most profiles have no such key.
    from awg_obfs.protocol.keys import public_key_of

    return public_key_of(key)


def _is_ipv6(host: str) -> bool:
    return not _is_name(host) and ipaddress.ip_address(host).version == 6


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
