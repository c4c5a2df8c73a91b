"""How long things are: messages, the zero bytes after a plaintext, and what is left of a path's MTU for QUIC."""

from __future__ import annotations

INITIATION_LENGTH = 148
RESPONSE_LENGTH = 92
COOKIE_REPLY_LENGTH = 64
# A header of 16 bytes before the content and an authentication tag of 16 after it.
TRANSPORT_OVERHEAD = 32
KEEPALIVE_LENGTH = TRANSPORT_OVERHEAD

# IP and UDP headers. Neither IPv4 options nor IPv6 extension headers are used by anybody.
IPV4_OVERHEAD = 20 + 8
IPV6_OVERHEAD = 40 + 8

# RFC 9000, section 14: QUIC does not work on less.
QUIC_SMALLEST = 1200

# WireGuard fills plaintexts up to a multiple of it.
_BLOCK = 16


def zero_fill(length: int, mtu: int) -> int:
    """Return how many zero bytes follow a plaintext of *length* bytes (spec, section 6.2).

    *mtu* is the largest plaintext there should be: the fill does not go beyond it. 0 stands for no limit.
    """
    if mtu == 0:
        return -length % _BLOCK
    beyond = length if length <= mtu else length % mtu
    return min(beyond + -beyond % _BLOCK, mtu) - beyond


def udp_payload(path_mtu: int, *, ipv6: bool = False) -> int:
    """Return how long a datagram can be that passes *path_mtu* in one piece."""
    return path_mtu - (IPV6_OVERHEAD if ipv6 else IPV4_OVERHEAD)


def quic_datagram_size(path_mtu: int, s4: int, *, ipv6: bool = False) -> int:
    """Return how long QUIC's datagrams can be: one more byte, or its zero fill, would go beyond *path_mtu*.

    Less than `QUIC_SMALLEST` means that QUIC cannot run there.
    """
    room = packet_mtu(path_mtu, s4, ipv6=ipv6)
    return room - room % _BLOCK


def largest_s4(path_mtu: int, *, ipv6: bool = False) -> int:
    """Return the largest S4 with which QUIC runs on *path_mtu*; negative where it does not even without."""
    return packet_mtu(path_mtu, 0, ipv6=ipv6) - QUIC_SMALLEST


def packet_mtu(path_mtu: int, s4: int, *, ipv6: bool = False) -> int:
    """Return how long an IP packet in a tunnel can be, so that its datagram passes *path_mtu* in one piece."""
    return udp_payload(path_mtu, ipv6=ipv6) - s4 - TRANSPORT_OVERHEAD


def path_mtu_for(packet: int, s4: int, *, ipv6: bool = False) -> int:
    """Return the least path MTU that takes a tunnel's IP packets of *packet* bytes in one piece."""
    return packet - packet_mtu(0, s4, ipv6=ipv6)
