"""Where a connection comes from, as a balancer in front of us says it: the PROXY protocol, versions 1 and 2.

See https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. The header comes before everything else, also before
TLS; whoever may send one must always send one, since nothing else tells it from what a client says.
"""

from __future__ import annotations

import ipaddress
import struct

import attrs

from tunnel_relay.errors import RelayProtocolError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1 = b"PROXY "
# Section 2.1, its end of line included.
_LONGEST_V1 = 107
_V2 = struct.Struct(">12sBBH")
# Version 2 may add what we do not read; a certificate's name is the longest of it.
LONGEST = 4096

_LOCAL, _PROXY = 0x20, 0x21
# Length of each address by family, the upper half of a byte; the lower one is the transport.
_FAMILIES = {1: 4, 2: 16}
_V1_WORDS = 6


@attrs.frozen
class ProxyHeader:
    """A header.

    Attributes:
      source: The client's IP address; None where the balancer speaks for itself, or of something else.
      length: Bytes that the header has.

    """

    source: str | None
    length: int


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header that *data* begins with; None where it is not all here yet.

    Raises:
      RelayProtocolError: it begins with something else.

    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_v2(data)
    if data[: len(_V1)] == _V1[: len(data)]:
        return _read_v1(data)
    raise RelayProtocolError("the connection does not begin with a PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _LONGEST_V1)
    if end < 0:
        if len(data) >= _LONGEST_V1:
            raise RelayProtocolError("a PROXY header is too long")
        return None
    words = data[:end].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return ProxyHeader(None, end + 2)
    if len(words) != _V1_WORDS or words[1] not in (b"TCP4", b"TCP6"):
        raise RelayProtocolError("a PROXY header makes no sense")
    try:
        source = ipaddress.ip_address(words[2].decode("ascii"))
    except ValueError as exc:
        raise RelayProtocolError("a PROXY header has no address") from exc
    if source.version != int(words[1][-1:]):
        raise RelayProtocolError("a PROXY header has an address of another family")
    return ProxyHeader(str(source), end + 2)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2.size:
        return None
    _, command, family, length = _V2.unpack_from(data)
    if length > LONGEST:
        raise RelayProtocolError("a PROXY header is too long")
    if command not in (_LOCAL, _PROXY):
        raise RelayProtocolError("a PROXY header is of no known version")
    end = _V2.size + length
    if len(data) < end:
        return None
    size = _FAMILIES.get(family >> 4)
    if command == _LOCAL or size is None:
        return ProxyHeader(None, end)
    if length < 2 * size + 4:
        raise RelayProtocolError("a PROXY header has no address")
    return ProxyHeader(str(ipaddress.ip_address(data[_V2.size : _V2.size + size])), end)
