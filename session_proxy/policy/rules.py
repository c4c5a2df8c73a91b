"""What a route says: which destinations it matches, on which ports, and where they go.

A rule is a list of matches, each a network, a name, a glob or anything, and optionally a set of ports.
``direct`` and ``reject`` are reserved words where an upstream is named.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Literal, Self

import attrs

from session_proxy.errors import InvalidTargetError
from session_proxy.policy.ports import PortSet
from session_proxy.target import Target, canonical_host

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DIRECT = "direct"
REJECT = "reject"
RESERVED = frozenset({DIRECT, REJECT})

ANY_FORM = 'write a CIDR, an address, a name, "*.NAME" or "*"'

# An IPv4-mapped network, ::ffff:0:0/96 and below (RFC 4291, section 2.5.5.2).
MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class InvalidRuleError(ValueError):
    """A match cannot be used; *fix* says what to write instead."""

    def __init__(self, message: str, fix: str) -> None:
        self.fix = fix
        super().__init__(message)


@attrs.frozen
class CidrMatch:
    """Every address in *network*; a single address is a network of one."""

    network: Network

    def __str__(self) -> str:
        alone = self.network.prefixlen == self.network.max_prefixlen
        return str(self.network.network_address if alone else self.network)


@attrs.frozen
class NameMatch:
    """Exactly the host *name*, in canonical spelling."""

    name: str

    def __str__(self) -> str:
        return self.name


@attrs.frozen
class GlobMatch:
    """Every name below *suffix* at any depth, but not *suffix* itself: ``*.suffix``."""

    suffix: str

    def __str__(self) -> str:
        return f"*.{self.suffix}"


@attrs.frozen
class AnyMatch:
    """Any name and any address: ``*``."""

    def __str__(self) -> str:
        return "*"


Match = CidrMatch | NameMatch | GlobMatch | AnyMatch


def parse_match(text: str) -> Match:
    """Return what *text* matches: a CIDR, an address, a name, ``*.NAME`` or ``*``.

    Raises:
      InvalidRuleError: *text* is none of these.

    """
    if text == "*":
        return AnyMatch()
    if not text or text != text.strip():
        raise InvalidRuleError(f"{text!r} matches nothing", ANY_FORM)
    if "/" in text:
        return CidrMatch(_parse_network(text))
    if text.startswith("*."):
        suffix = _parse_host(text[2:], text)
        if _as_address(suffix) is not None:
            raise InvalidRuleError(
                f"{text!r} mixes a glob and an address", 'write a CIDR, such as "10.0.0.0/8"'
            )
        return GlobMatch(suffix)
    if "*" in text or "?" in text:
        raise InvalidRuleError(
            f"{text!r} has a wildcard that is not a leading label",
            f'write "{_widest_glob(text)}"; only "*.NAME" and "*" are globs',
        )
    host = _parse_host(text, text)
    address = _as_address(host)
    return NameMatch(host) if address is None else CidrMatch(ipaddress.ip_network(address))


def _parse_network(text: str) -> Network:
    base, _, length = text.partition("/")
    address = _as_address(base.strip("[]"))
    if address is None or "%" in base:
        if "://" in text:
            raise InvalidRuleError(f"{text!r} is a URL", "write its host alone")
        raise InvalidRuleError(
            f"{text!r} is not a network", 'write "ADDRESS/LENGTH", such as "10.0.0.0/8" or "2001:db8::/32"'
        )
    try:
        network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    except ValueError as exc:
        most = address.max_prefixlen
        raise InvalidRuleError(
            f"{length!r} is not a prefix length",
            f'write a number up to {most}, such as "{address}/{most}"',
        ) from exc
    if not length.isdigit():
        raise InvalidRuleError(f"{length!r} is a mask, not a prefix length", f'write "{network}"')
    if address != network.network_address:
        raise InvalidRuleError(
            f"{text!r} has host bits set",
            f'write "{network}" for the network, or "{address}" for that one address',
        )
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED):
        # Targets in this form become IPv4, so the rule has to follow them.
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return ipaddress.IPv4Network((int(mapped), network.prefixlen - MAPPED.prefixlen))
    return network


def _parse_host(host: str, text: str) -> str:
    try:
        return canonical_host(host)
    except InvalidTargetError as exc:
        raise InvalidRuleError(f"{text!r} cannot match: {exc}", _name_fix(text)) from exc


def _as_address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _name_fix(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        return f'write "{host}", and the port as ports = {port}'
    if text.startswith("."):
        return f'write "*{text}" for every name below it'
    return ANY_FORM


def _widest_glob(text: str) -> str:
    """Return the glob that covers what *text* seems to mean: ``web-*.prod`` becomes ``*.prod``."""
    tail = re.split(r"[*?]", text)[-1].partition(".")[2]
    return f"*.{tail}" if tail else "*"


@attrs.frozen(kw_only=True)
class Rule:
    """One entry of ``[[routes]]``: the first that matches a destination, in file order, decides.

    Attributes:
      match: Which destinations: a CIDR, an address, a name, `*.NAME` (every depth below NAME, not NAME
          itself) or `*`; one or a list.
      ports: On which ports: numbers or ranges such as `"8000-8999"`, one or a list; absent, on all.
      upstream: Where they go: an upstream, `direct` or `reject`; or a list, tried in order within one
          connect.
      resolve: With `local`, a CIDR also matches a name that this machine resolves into it; the name is still
          what is sent.

    """

    match: tuple[Match, ...] = attrs.field(metadata={"example": '"10.0.0.0/8"'})
    ports: PortSet | None = attrs.field(default=None, metadata={"example": '["443", "8000-8999"]'})
    upstream: tuple[str, ...] = attrs.field(metadata={"example": '"direct"', "refers": "upstreams"})
    resolve: Literal["remote", "local"] = "remote"

    def networks(self) -> Iterable[Network]:
        """Return the networks among the matches."""
        return (match.network for match in self.match if isinstance(match, CidrMatch))

    @classmethod
    def of(
        cls,
        match: str | Sequence[str],
        upstream: str | Sequence[str],
        ports: Sequence[str | int] = (),
        resolve: Literal["remote", "local"] = "remote",
    ) -> Self:
        """Return the rule that these texts mean; raises `InvalidRuleError` or `InvalidPortsError`."""
        return cls(
            match=tuple(map(parse_match, [match] if isinstance(match, str) else match)),
            ports=PortSet.parse(ports) if ports else None,
            upstream=(upstream,) if isinstance(upstream, str) else tuple(upstream),
            resolve=resolve,
        )


@attrs.frozen
class Decision:
    """Where a destination goes: *upstreams* in order, because of *rule*.

    *rule* is ``routes[3]``, counted from 0 in file order, or ``default``.
    """

    rule: str
    upstreams: tuple[str, ...]

    @property
    def rejected(self) -> bool:
        """Whether the destination is refused by policy."""
        return self.upstreams == (REJECT,)


def unmapped(address: Address) -> Address:
    """Return *address*, or the IPv4 address that it carries (RFC 4291, section 2.5.5.2)."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def matches(match: Match, target: Target, addresses: Sequence[Address] = ()) -> bool:
    """Tell whether *match* takes *target*, whatever the port.

    *addresses* are what a name resolves to here; leave them out where the rule may not look.
    """
    match match:
        case AnyMatch():
            return True
        case NameMatch(name):
            return target.host == name
        case GlobMatch(suffix):
            return target.host.endswith(f".{suffix}") and target.address is None
        case CidrMatch(network):
            own = target.address
            return any(unmapped(address) in network for address in ([own] if own is not None else addresses))
