"""Answer from the address that was written to.

A socket bound to all addresses of a machine sends from the one that its routes prefer. Whoever wrote to another one
waits for an answer from there, and so does the NAT before it. Linux tells which address a datagram came to, and lets
the sender of one say which it comes from (ip(7), ipv6(7)).
"""

from __future__ import annotations

import socket
import struct
import sys

import attrs

from awg_obfs.addresses import is_any
from awg_obfs.protocol.address import Address

# Linux's numbers; Python has names for some of them only.
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50

Ancillary = tuple[int, int, bytes]
"""What goes beside a datagram: level, type, and data."""

# Interface, local address, and the header's destination; the address, and the interface.
_ipv4_info = struct.Struct("=I4s4s")
_ipv6_info = struct.Struct("=16sI")

ANCILLARY_SPACE = socket.CMSG_SPACE(_ipv6_info.size)

# The first ten bits of link-local addresses, which mean something on one interface only.
_LINK_LOCAL = b"\xfe\x80"

# Senders remembered. Strangers choose how many there are, so all are forgotten then; the next datagram tells again.
MAX_SENDERS = 4096


@attrs.define(eq=False)
class Sources:
    """Which of our addresses each sender writes to."""

    _came_to: dict[Address, bytes] = attrs.field(factory=dict[Address, bytes], init=False)
    _answers: dict[Address, Ancillary] = attrs.field(factory=dict[Address, Ancillary], init=False)

    @classmethod
    def of(cls, sock: socket.socket, bound: Address) -> Sources | None:
        """Return those of *sock*; None where there is but one address, or the system does not tell."""
        if sys.platform != "linux" or not is_any(bound):
            return None
        try:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        except OSError:
            return None
        return cls()

    def note(self, sender: Address, ancillary: Ancillary) -> None:
        """Remember what came beside a datagram."""
        level, kind, info = ancillary
        if self._came_to.get(sender) == info:
            return
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            _, local, _ = _ipv4_info.unpack(info)
            answer = _ipv4_info.pack(0, local, bytes(4))
        elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            local, interface = _ipv6_info.unpack(info)
            answer = _ipv6_info.pack(local, interface if local[:2] == _LINK_LOCAL else 0)
        else:
            return
        if len(self._came_to) >= MAX_SENDERS:
            self._came_to.clear()
            self._answers.clear()
        self._came_to[sender] = info
        self._answers[sender] = level, kind, answer

    def answer(self, address: Address) -> Ancillary | None:
        """Return what goes beside a datagram to *address*, for it to come from where that writes to."""
        return self._answers.get(address)

    def forget(self, address: Address) -> None:
        """Let routes decide: the address has gone."""
        self._came_to.pop(address, None)
        self._answers.pop(address, None)
