"""Options of UDP sockets that not every system has. Each says whether it took effect."""

from __future__ import annotations

import socket
import sys

# Linux's numbers; Python has names for none of them.
UDP_SEGMENT = 103
UDP_GRO = 104
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
# Fragment what the path is known not to take (the system's default); never fragment.
_PMTUDISC_WANT = 1
_PMTUDISC_DO = 2

# Less is never asked for.
_SMALLEST_BUFFER = 1 << 16


def enable_segmentation(sock: socket.socket) -> bool:
    """See whether the kernel cuts one buffer into datagrams, where a message says so."""
    return _on_linux() and _set(sock, socket.IPPROTO_UDP, UDP_SEGMENT, 0)


def enable_coalescing(sock: socket.socket) -> bool:
    """Have the kernel put datagrams together that came together."""
    return _on_linux() and _set(sock, socket.IPPROTO_UDP, UDP_GRO, 1)


def allow_fragments(sock: socket.socket, *, allow: bool) -> bool:
    """Have datagrams fragmented that the path is known not to take, or have them refused."""
    mode = _PMTUDISC_WANT if allow else _PMTUDISC_DO
    took_effect = _on_linux() and _set(sock, socket.IPPROTO_IP, _IP_MTU_DISCOVER, mode)
    if took_effect and sock.family == socket.AF_INET6:
        took_effect = _set(sock, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, mode)
    return took_effect


def enlarge_buffers(sock: socket.socket, size: int) -> None:
    """Have the kernel keep *size* bytes each way, or as many as it lets us."""
    for forced, option in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        if not (_on_linux() and _set(sock, socket.SOL_SOCKET, forced, size)):
            smaller = size
            # Linux cuts the wish down to what it allows. Others refuse it.
            while not _set(sock, socket.SOL_SOCKET, option, smaller) and smaller > _SMALLEST_BUFFER:
                smaller //= 2


def speak_both_families(sock: socket.socket) -> bool:
    """Let a socket of IPv6 take IPv4 as well."""
    return socket.has_dualstack_ipv6() and _set(sock, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)


def _on_linux() -> bool:
    return sys.platform == "linux"


def _set(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
