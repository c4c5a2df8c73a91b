"""SOCKS5 UDP ASSOCIATE (RFC 1928, section 7) behind the interface of a UDP socket, for programs that take one.

`udp_sockets` is what `dns.query.socket_factory` may be set to.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from tests.support.socks import receive_exactly

PATIENCE = 10.0
_HEAD = b"\x00\x00\x00"
_KINDS = {1: 4, 4: 16}


class SocksUdpSocket(socket.socket):
    """A UDP socket whose datagrams go through a SOCKS5 server, and which tells who sent what comes back."""

    control: socket.socket

    @classmethod
    def associate(cls, proxy: tuple[str, int], credentials: tuple[str, str] | None = None) -> SocksUdpSocket:
        """Return a socket of an association with *proxy*; closing it ends the association."""
        control = socket.create_connection(proxy, timeout=PATIENCE)
        _introduce(control, credentials)
        control.sendall(b"\x05\x03\x00\x01" + bytes(6))
        _, code, _, kind = receive_exactly(control, 4)
        assert code == 0, f"SOCKS reply {code}"
        host = str(ipaddress.ip_address(receive_exactly(control, _KINDS[kind])))
        port = int.from_bytes(receive_exactly(control, 2), "big")
        made = cls(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        made.connect((host, port))
        made.control = control
        return made

    def close(self) -> None:
        """Close the socket and the connection that the association lives by."""
        super().close()
        self.control.close()

    def sendto(self, data: Any, *rest: Any) -> int:  # noqa: ANN401 - as socket.socket has it
        """Send *data* to an address of the form (host, port), the last argument; the host may be a name."""
        host, port = rest[-1][:2]
        try:
            address = ipaddress.ip_address(host)
            encoded = (b"\x01" if address.version == 4 else b"\x04") + address.packed
        except ValueError:
            encoded = b"\x03" + bytes((len(host),)) + host.encode()
        self.send(_HEAD + encoded + port.to_bytes(2, "big") + bytes(data))
        return len(data)

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, tuple[str, int]]:
        """Return the next datagram's content, and who sent it."""
        datagram = self.recv(bufsize + 262, flags)
        assert datagram[:3] == _HEAD
        end = 4 + _KINDS[datagram[3]]
        host = str(ipaddress.ip_address(datagram[4:end]))
        return datagram[end + 2 :], (host, int.from_bytes(datagram[end : end + 2], "big"))


def _introduce(control: socket.socket, credentials: tuple[str, str] | None) -> None:
    if credentials is None:
        control.sendall(b"\x05\x01\x00")
        assert receive_exactly(control, 2) == b"\x05\x00"
        return
    control.sendall(b"\x05\x01\x02")
    assert receive_exactly(control, 2) == b"\x05\x02"
    user, password = (text.encode() for text in credentials)
    control.sendall(b"\x01" + bytes((len(user),)) + user + bytes((len(password),)) + password)
    assert receive_exactly(control, 2) == b"\x01\x00"


def udp_sockets(
    proxy: tuple[str, int], credentials: tuple[str, str] | None = None
) -> Callable[..., SocksUdpSocket]:
    """Return a function that makes sockets like `socket.socket` does, of any family and kind."""
    return lambda *_: SocksUdpSocket.associate(proxy, credentials)
