"""A client of SOCKS5 (RFC 1928), for the lab to come in through the front door like anybody else."""

from __future__ import annotations

import trio

from session_proxy.errors import SessionProxyError
from session_proxy.target import Target, split_host_port

VERSION = 5
# RFC 1928, section 3: one method, no authentication; and the server's choice of it.
GREETING, CHOICE = b"\x05\x01\x00", b"\x05\x00"
CONNECT = b"\x05\x01\x00"
# RFC 1928, section 5: address types, and how long an address is; a name says it itself.
IPV4, NAME, IPV6 = 1, 3, 4
ADDRESS_SIZES = {IPV4: 4, IPV6: 16}

# RFC 1928, section 6: what the reply codes mean.
REPLIES = {
    1: "general failure",
    2: "not allowed",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "timed out",
    7: "command not supported",
    8: "address type not supported",
}


class SocksRefusedError(SessionProxyError):
    """The proxy did not open the connection; the message says what it answered."""


async def connect_through(proxy: str, target: str) -> trio.SocketStream:
    """Return a connection to *target* through the SOCKS5 server *proxy*; both are ``HOST:PORT``.

    Raises:
      SocksRefusedError: the proxy refused, or it is none.
      OSError: the proxy cannot be reached.

    """
    host, port = split_host_port(proxy)
    stream = await trio.open_tcp_stream(host, port)
    try:
        await _negotiate(stream, Target.parse(target))
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _negotiate(stream: trio.abc.Stream, target: Target) -> None:
    try:
        await stream.send_all(GREETING)
        if await _receive_exactly(stream, 2) != CHOICE:
            raise SocksRefusedError("the proxy wants credentials, or speaks another protocol")
        await stream.send_all(encode_request(target))
        version, code, _, kind = await _receive_exactly(stream, 4)
        size = ADDRESS_SIZES.get(kind) or (await _receive_exactly(stream, 1))[0]
        await _receive_exactly(stream, size + 2)
    except trio.BrokenResourceError as exc:
        raise SocksRefusedError("the proxy reset the connection") from exc
    if version != VERSION or code:
        raise SocksRefusedError(f"the proxy answered: {REPLIES.get(code, f'code {code}')}")


def encode_request(target: Target) -> bytes:
    """Return the CONNECT request for *target* (RFC 1928, section 4)."""
    address = target.address
    if address is None:
        name = target.host.encode("ascii")
        packed = bytes([NAME, len(name)]) + name
    else:
        packed = bytes([IPV4 if address.version == 4 else IPV6]) + address.packed
    return CONNECT + packed + target.port.to_bytes(2, "big")


async def _receive_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    """Return *count* bytes and take no more: what follows a reply belongs to the connection."""
    received = b""
    while len(received) < count:
        piece = await stream.receive_some(count - len(received))
        if not piece:
            raise SocksRefusedError("the proxy closed the connection")
        received += piece
    return received
