"""The reference's configuration protocol, as far as obfuscation goes: what it accepts, refuses and half applies.

It is here so that what we say about a configuration can be held against the reference (spec, section 7). Lines that
concern keys, ports and peers are judged as the reference judges them, and have no effect.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable, Mapping

import attrs

from awg_obfs.errors import HeaderRangeError, NumberError, TagChainError
from awg_obfs.protocol.decimals import MAX_UINT16, MAX_UINT32, parse_signed, parse_unsigned
from awg_obfs.protocol.headers import HeaderRange, first_overlap
from awg_obfs.protocol.parameters import (
    DEFAULT,
    HEADER_KEYS,
    JUNK_KEYS,
    PADDING_KEYS,
    SIGNATURE_KEYS,
)
from awg_obfs.protocol.tags import TagChain

# What Go's bufio.Scanner reads; a longer line ends the operation.
MAX_LINE = 64 * 1024

_KEY = re.compile("[0-9A-Fa-f]{64}")
# Go's netip.ParsePrefix takes no zone, no netmask and no leading zero; the minus removes the network.
_NETWORK = re.compile("-?([0-9A-Fa-f:.]+/(?:0|[1-9][0-9]{0,2}))")


class Errno(enum.IntEnum):
    """How an operation ended, in the reference's numbers."""

    OK = 0
    IO = -5
    INVALID = -22
    PROTOCOL = -71


class Configuration:
    """The obfuscation of one reference device, changed by ``set`` operations and shown by ``get``."""

    def __init__(self) -> None:
        self.parameters = DEFAULT
        """What is in force now, refused or not."""

    def set(self, operation: str | bytes) -> Errno:
        """Carry out the lines of *operation* and return how it ended.

        Each line takes effect at once, so those before a faulty one stay.
        """
        text = operation if isinstance(operation, bytes) else operation.encode("utf-8", "surrogateescape")
        lines = text.split(b"\n")
        if not lines[-1]:
            # What follows the last line feed is no line.
            lines.pop()
        in_peer = False
        ended = Errno.OK
        for raw in lines:
            if len(raw) >= MAX_LINE:
                ended = Errno.IO
                break
            line = raw.removesuffix(b"\r").decode("utf-8", "surrogateescape")
            if not line:
                break
            key, equals, value = line.partition("=")
            if not equals:
                return Errno.PROTOCOL
            in_peer = in_peer or key == "public_key"
            if not (_peer_line(key, value) if in_peer else self._device_line(key, value)):
                return Errno.INVALID
        # Checked even where nothing about headers was said; the ranges stay in force all the same.
        return ended if first_overlap(self.parameters.headers) is None else Errno.INVALID

    def get(self) -> list[str]:
        """Return the lines about obfuscation that a ``get`` shows."""
        values = self.parameters
        numbers = [(key, getattr(values, key)) for key in JUNK_KEYS + PADDING_KEYS]
        lines = [f"{key}={number}" for key, number in numbers if number]
        lines += [f"{key}={header}" for key, header in zip(HEADER_KEYS, values.headers, strict=True)]
        signatures = zip(SIGNATURE_KEYS, values.signatures, strict=True)
        return lines + [f"{key}={chain.text}" for key, chain in signatures if chain is not None]

    def _device_line(self, key: str, value: str) -> bool:
        if (accepts := _DEVICE_KEYS.get(key)) is not None:
            return accepts(value)
        try:
            read = _READERS[key](value)
        except (KeyError, NumberError, HeaderRangeError, TagChainError):
            return False
        if isinstance(read, int) and read < (1 if key in JUNK_KEYS else 0):
            return False
        fields: dict[str, object] = {key: read}
        self.parameters = attrs.evolve(self.parameters, **fields)
        return True


def _peer_line(key: str, value: str) -> bool:
    accepts = _PEER_KEYS.get(key)
    return accepts is not None and accepts(value)


def _is_key(value: str) -> bool:
    return _KEY.fullmatch(value) is not None


def _is_true(value: str) -> bool:
    return value == "true"


def _is_unsigned(maximum: int) -> Callable[[str], bool]:
    def accepts(value: str) -> bool:
        try:
            parse_unsigned(value, maximum)
        except NumberError:
            return False
        return True

    return accepts


def _is_endpoint(value: str) -> bool:
    host, colon, port = value.rpartition(":")
    if not colon or not _is_unsigned(MAX_UINT16)(port):
        return False
    try:
        if host.startswith("[") and host.endswith("]"):
            ipaddress.IPv6Address(host[1:-1])
        else:
            ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_network(value: str) -> bool:
    found = _NETWORK.fullmatch(value)
    try:
        return found is not None and bool(ipaddress.ip_network(found[1], strict=False))
    except ValueError:
        return False


def _chain(value: str) -> TagChain:
    return TagChain.parse(value, strict=True)


_READERS: Mapping[str, Callable[[str], int | HeaderRange | TagChain]] = {
    **dict.fromkeys(JUNK_KEYS + PADDING_KEYS, parse_signed),
    **dict.fromkeys(HEADER_KEYS, HeaderRange.parse),
    **dict.fromkeys(SIGNATURE_KEYS, _chain),
}

_DEVICE_KEYS: Mapping[str, Callable[[str], bool]] = {
    "private_key": _is_key,
    "listen_port": _is_unsigned(MAX_UINT16),
    "fwmark": _is_unsigned(MAX_UINT32),
    "replace_peers": _is_true,
}

_PEER_KEYS: Mapping[str, Callable[[str], bool]] = {
    "public_key": _is_key,
    "preshared_key": _is_key,
    "endpoint": _is_endpoint,
    "allowed_ip": _is_network,
    "persistent_keepalive_interval": _is_unsigned(MAX_UINT16),
    "replace_allowed_ips": _is_true,
    "update_only": _is_true,
    "remove": _is_true,
    "protocol_version": lambda value: value == "1",
}
