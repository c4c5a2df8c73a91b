"""Where a connection is to go: a host and a port, in one canonical spelling."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from functools import cached_property
from typing import Self

import attrs
import idna

from session_proxy.errors import InvalidTargetError

# RFC 1035, section 2.3.4: a name takes at most 253 characters without its final dot.
MAX_NAME = 253

# Zeros in front of a port do no harm; more digits than this are none.
_MAX_PORT_DIGITS = 20

# Of URLs that say none (RFC 9110, section 4.2).
DEFAULT_PORTS = {"http": 80, "https": 443}


def canonical_host(host: str) -> str:
    """Return *host* as it is compared and sent: an address in short form, or a lower-case A-label name.

    IDNA (UTS 46) is applied to names, a final dot is dropped, brackets round an IPv6 address are too.
    An IPv4-mapped IPv6 address becomes IPv4, so that no rule is evaded by spelling.

    Raises:
      InvalidTargetError: *host* is neither an address nor a name.

    """
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _canonical_name(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _canonical_name(name: str) -> str:
    bare = name.removesuffix(".")
    if not bare:
        raise InvalidTargetError("the host is empty")
    if bare.isascii():
        # Names of services and of Windows hosts carry underscores, which IDNA would refuse.
        encoded = bare.lower()
    else:
        try:
            encoded = idna.encode(bare, uts46=True, transitional=False).decode("ascii")
        except idna.IDNAError as exc:
            raise InvalidTargetError(f"{name!r} is not a host name: {exc}") from exc
    if len(encoded) > MAX_NAME:
        raise InvalidTargetError(
            f"the host name has {len(encoded)} characters; at most {MAX_NAME} are allowed"
        )
    for label in encoded.split("."):
        if not label or len(label) > 63:
            raise InvalidTargetError(f"{name!r} is not a host name: a label has 1 to 63 characters")
        if not all(c.isalnum() or c in "-_" for c in label):
            raise InvalidTargetError(f"{name!r} is not a host name")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", encoded.rpartition(".")[2]):
        # WHATWG URL, 3.5: a name that ends in a number is meant as an IPv4 address, and this one is none.
        # Resolvers follow inet_aton and would take 0x7f000001 for 127.0.0.1, past every rule about it.
        raise InvalidTargetError(f"{name!r} is not an IPv4 address")
    return encoded


def _host_port_of_url(url: str) -> str:
    """Return the ``HOST:PORT`` that *url* leads to, without what may be secret; "" where it is not clear."""
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    port = DEFAULT_PORTS.get(scheme.lower())
    for text in (authority, f"{authority}:{port}"):
        with suppress(InvalidTargetError):
            return str(Target.parse(text))
    return ""


def split_host_port(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` or ``[V6]:PORT``; the port is 0 to 65535.

    Raises:
      InvalidTargetError: *text* has another shape.

    """
    if "://" in text:
        raise InvalidTargetError("is a URL", f"write {_host_port_of_url(text) or 'HOST:PORT'}")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise InvalidTargetError(f"{text!r} has no port")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise InvalidTargetError(f"{text!r} is ambiguous", "write an IPv6 address as [ADDRESS]:PORT")
    # Python refuses to read numbers of more than 4 300 digits.
    if not (port.isascii() and port.isdigit() and len(port) <= _MAX_PORT_DIGITS) or int(port) > 65535:
        raise InvalidTargetError(f"{port!r} is not a port", "write HOST:PORT with a port up to 65535")
    return host, int(port)


@attrs.frozen
class Target:
    """A destination: an IP address or a name, and a port from 1 to 65535.

    Build one with `Target.of` or `Target.parse`, which bring the host into canonical form.
    """

    host: str
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> Self:
        """Return the target *host*:*port*; raises `InvalidTargetError`."""
        if not 1 <= port <= 65535:
            raise InvalidTargetError(f"{port} is not a port", "write HOST:PORT with a port from 1 to 65535")
        return cls(canonical_host(host), port)

    @classmethod
    def of_address(cls, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> Self:
        """Return the target *address*:*port*; raises `InvalidTargetError`."""
        if not 1 <= port <= 65535:
            raise InvalidTargetError(f"{port} is not a port", "write HOST:PORT with a port from 1 to 65535")
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        target = cls(str(mapped or address), port)
        # What `address` would find by reading the host again; every connection asks for it.
        object.__setattr__(target, "address", mapped or address)
        return target

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the target that ``HOST:PORT`` names; raises `InvalidTargetError`."""
        return cls.of(*split_host_port(text))

    @cached_property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address, or `None` where the host is a name."""
        # Finding out by exceptions what a canonical host is takes longer than deciding where it goes.
        try:
            if ":" in self.host:
                return ipaddress.IPv6Address(self.host)
            return ipaddress.IPv4Address(self.host) if self.host[-1:].isdigit() else None
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
