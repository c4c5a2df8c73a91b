"""``MTU`` of a ``.conf``, which bounds IP packets in a tunnel, and ``mtu`` of our files, which is the path's."""

from __future__ import annotations

import attrs

from awg_obfs.protocol.conf import MTU, Kept
from awg_obfs.protocol.lint import DEFAULT_PATH_MTU
from awg_obfs.protocol.sizes import QUIC_SMALLEST, packet_mtu, path_mtu_for
from session_proxy.profile.model import LARGEST_MTU, SMALLEST_MTU

# As many digits as the largest has.
_DIGITS = len(str(LARGEST_MTU))


@attrs.frozen
class PathMtu:
    """What a ``.conf`` says of the path: its MTU, and why that is not what the file's ``MTU`` asks for."""

    value: int = DEFAULT_PATH_MTU
    warning: str = ""


def path_mtu_of(kept: Kept, s4: int, *, ipv6: bool) -> PathMtu:
    """Return the ``mtu`` that leaves the tunnel as much room as the ``MTU`` among the fields *kept* does."""
    text = _text(kept)
    if text is None:
        return PathMtu()
    stays = f"mtu stays {DEFAULT_PATH_MTU}; write the path's own where it is another"
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        return PathMtu(warning=f"[Interface] {MTU}: is no number of bytes, and {stays}")
    path = path_mtu_for(int(text), s4, ipv6=ipv6)
    if path > DEFAULT_PATH_MTU:
        return PathMtu(warning=f"[Interface] {MTU}: {text} needs a path of {path} bytes, and {stays}")
    if int(text) < QUIC_SMALLEST or path < SMALLEST_MTU:
        return PathMtu(warning=f"[Interface] {MTU}: {text} leaves QUIC less than it needs, and {stays}")
    return PathMtu(path)


def with_mtu(kept: Kept, path_mtu: int, s4: int, *, ipv6: bool) -> Kept:
    """Return *kept* with the ``MTU`` that fits *path_mtu*; as it is where that says the same."""
    if path_mtu_of(kept, s4, ipv6=ipv6).value == path_mtu:
        return kept
    packet = packet_mtu(path_mtu, s4, ipv6=ipv6)
    return (*(field for field in kept if field[0] != MTU), (MTU, str(packet)))


def _text(kept: Kept) -> str | None:
    # awg-quick(8) takes the last one.
    return next((value for name, value in reversed(kept) if name == MTU), None)
