"""What is wrong with a set of parameters taken together, and what to write instead.

Refused is what crashes the reference, what no datagram can hold, and what leaves QUIC no room. What merely betrays
us, or loses a datagram now and then, draws a warning (spec, sections 4, 5.4, 7.6, 9.1 and 10).
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator, Mapping

import attrs

from awg_obfs.errors import KeyProblem, ParametersError
from awg_obfs.protocol.headers import first_overlap
from awg_obfs.protocol.parameters import DEFAULT, HEADER_KEYS, Parameters, parameters_from_mapping
from awg_obfs.protocol.parameters import SIGNATURE_KEYS as SIGNATURES
from awg_obfs.protocol.sizes import (
    COOKIE_REPLY_LENGTH,
    INITIATION_LENGTH,
    QUIC_SMALLEST,
    RESPONSE_LENGTH,
    largest_s4,
    udp_payload,
)
from awg_obfs.protocol.tags import MAX_UDP_PAYLOAD

# Ethernet, and nearly every path in the Internet that is no tunnel.
DEFAULT_PATH_MTU = 1500

# The reference's sockets take so many datagrams in one call, and panic at one more.
MAX_BATCH = 128

# What the reference's README recommends.
FEWEST_JUNK, MOST_JUNK = 4, 12
# What the kernel module's README recommends.
SMALLEST_PADDING, LARGEST_PADDING = 15, 150
LARGEST_HEADER = 2**31 - 1

# A data packet as long as a handshake message is taken for one as often as its padding falls into the range. One in
# a thousand of such packets is less than what paths lose anyway.
WIDE_RANGE = 2**32 // 1000

_HANDSHAKE = (
    ("s1", INITIATION_LENGTH, "initiation"),
    ("s2", RESPONSE_LENGTH, "response"),
    ("s3", COOKIE_REPLY_LENGTH, "cookie reply"),
)


class Severity(enum.Enum):
    """What a finding means for the one who reads the file."""

    REFUSE = "refuse"
    WARN = "warn"


@attrs.frozen
class Finding:
    """One thing that is wrong with parameters: the key, what is wrong, and what to write instead."""

    severity: Severity
    key: str
    text: str
    proposal: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}; {self.proposal}"


def findings(
    parameters: Parameters,
    *,
    path_mtu: int = DEFAULT_PATH_MTU,
    ipv6: bool = False,
    keepalive_padding: bool = False,
) -> tuple[Finding, ...]:
    """Return everything that is wrong with *parameters* on a path of *path_mtu* bytes, refusals first.

    *keepalive_padding* says that keepalives are padded with S4 as data is, which the reference does not do.
    """
    room = udp_payload(path_mtu, ipv6=ipv6)
    refused = itertools.chain(
        _refuse_junk(parameters),
        _refuse_headers(parameters),
        _refuse_sizes(parameters),
        _refuse_s4(parameters, path_mtu, ipv6=ipv6),
    )
    warned = itertools.chain(
        _warn_junk(parameters, room),
        _warn_paddings(parameters, room, keepalive_padding=keepalive_padding),
        _warn_headers(parameters),
        _warn_signatures(parameters, room),
    )
    found = [Finding(Severity.REFUSE, *finding) for finding in refused]
    refused_keys = {finding.key for finding in found}
    found += [Finding(Severity.WARN, *finding) for finding in warned if finding[0] not in refused_keys]
    return tuple(found)


def checked_parameters(
    values: Mapping[str, object],
    *,
    path_mtu: int = DEFAULT_PATH_MTU,
    ipv6: bool = False,
    keepalive_padding: bool = False,
) -> tuple[Parameters, tuple[Finding, ...]]:
    """Return the parameters that a file's table gives, and the warnings about them.

    Raises:
      ParametersError: a value cannot be read, or the values together are refused; it lists every fault.

    """
    parameters = parameters_from_mapping(values)
    found = findings(parameters, path_mtu=path_mtu, ipv6=ipv6, keepalive_padding=keepalive_padding)
    refused = [finding for finding in found if finding.severity is Severity.REFUSE]
    if refused:
        raise ParametersError(
            [KeyProblem(finding.key, finding.text, finding.proposal) for finding in refused]
        )
    return parameters, found


# A finding before it has a severity: key, text, proposal.
_Found = tuple[str, str, str]


def _refuse_junk(values: Parameters) -> Iterator[_Found]:
    if values.jmax < values.jmin:
        below = f"below jmin, which is {values.jmin}"
        below = f"is {below}" if values.jmax else f"is missing and so 0, {below}"
        yield "jmax", below, f"write jmax = {values.jmin + 30}, or lower jmin"
    most = MAX_BATCH - 1 - len(values.chains)
    if values.jc > most:
        packets = f", {len(values.chains)} signature packets" if values.chains else ""
        yield (
            "jc",
            f"{values.jc} junk packets{packets} and the initiation are more than the {MAX_BATCH} datagrams of a batch",
            f"write jc = {most} or less; {FEWEST_JUNK} to {MOST_JUNK} are recommended",
        )


def _refuse_headers(values: Parameters) -> Iterator[_Found]:
    full = [key for key, header in zip(HEADER_KEYS, values.headers, strict=True) if header.covers_everything]
    for key in full:
        yield (
            key,
            "covers every number there is",
            f'write a narrower range, as in {key} = "{_free_range(key)}"',
        )
    pair = first_overlap(values.headers)
    if pair is None or full:
        return
    key, other = HEADER_KEYS[pair[0]], HEADER_KEYS[pair[1]]
    if values.headers[pair[1]] == DEFAULT.headers[pair[1]]:
        # The one that was written is the one to look at.
        pair, key, other = pair[::-1], other, key
    mine, theirs = values.headers[pair[1]], values.headers[pair[0]]
    usual = " (its default)" if theirs == DEFAULT.headers[pair[0]] else ""
    yield (
        other,
        f"{mine} shares numbers with {key}, which is {theirs}{usual}",
        "write four ranges that share none, as in "
        + ", ".join(f'{name} = "{_free_range(name)}"' for name in HEADER_KEYS),
    )


def _free_range(key: str) -> str:
    start = 100_000 * (2 * HEADER_KEYS.index(key) + 1)
    return f"{start}-{start + 100_000}"


def _refuse_sizes(values: Parameters) -> Iterator[_Found]:
    limit = f"more than the {MAX_UDP_PAYLOAD} bytes of a datagram"
    if values.jmax > MAX_UDP_PAYLOAD:
        yield "jmax", f"{values.jmax} is {limit}", "write jmax = 70, for instance"
    for key, length, name in _HANDSHAKE:
        padding: int = getattr(values, key)
        if padding + length > MAX_UDP_PAYLOAD:
            yield (
                key,
                f"{padding} and the {length} bytes of the {name} are {limit}",
                f"write {key} = 30, for instance",
            )
    for key, chain in zip(SIGNATURES, values.signatures, strict=True):
        if chain is not None and chain.length > MAX_UDP_PAYLOAD:
            yield key, f"{chain.length} bytes are {limit}", "make it shorter: 1200 bytes pass everywhere"


def _refuse_s4(values: Parameters, path_mtu: int, *, ipv6: bool) -> Iterator[_Found]:
    most = largest_s4(path_mtu, ipv6=ipv6)
    if values.s4 <= most:
        return
    lack = f"less than the {QUIC_SMALLEST} bytes it needs of a path MTU of {path_mtu}"
    if most > 0:
        yield "s4", f"{values.s4} leaves QUIC {lack}", f"write s4 = {most} or less"
    elif most == 0:
        yield "s4", f"{values.s4} leaves QUIC {lack}", "leave s4 out"
    else:
        yield "s4", f"even without it QUIC has {lack}", f"the path's MTU must be {path_mtu - most} or more"


def _warn_junk(values: Parameters, room: int) -> Iterator[_Found]:
    if values.jc == 0:
        if values.jmax:
            yield "jmax", "has no effect without jc", f"write jc = {FEWEST_JUNK}, or leave jmin and jmax out"
        return
    if not FEWEST_JUNK <= values.jc <= MOST_JUNK:
        text = f"{values.jc} junk packets are not what is recommended"
        yield "jc", text, f"write a number from {FEWEST_JUNK} to {MOST_JUNK}"
    if values.jmin == 0:
        text = "is 0, so junk packets can be empty, and a receiver may lose the datagram after an empty one"
        yield "jmin", text, "write jmin = 8, for instance"
    elif values.jmin == values.jmax:
        text = f"equals jmin, so all junk packets have {values.jmax} bytes: a pattern"
        yield "jmax", text, f"write jmax = {values.jmin + 30}, for instance"
    if values.jmax > room:
        yield "jmax", f"{values.jmax} is {_too_long(room)}", f"write jmax = {room} or less; 80 is recommended"


def _warn_paddings(values: Parameters, room: int, *, keepalive_padding: bool) -> Iterator[_Found]:
    if values == DEFAULT:
        # It is plain WireGuard on purpose or by mistake; _warn_headers says so once.
        return
    for key, length, name in _HANDSHAKE:
        padding: int = getattr(values, key)
        if padding + length > room:
            text = f"{padding} and the {length} bytes of the {name} are {_too_long(room)}"
            yield key, text, f"write {key} = {LARGEST_PADDING} or less"
        elif key != "s3" and not SMALLEST_PADDING <= padding <= LARGEST_PADDING:
            text = f"the {name} has {padding + length} bytes, which is easy to recognise"
            if padding > LARGEST_PADDING:
                text = f"{padding} is more than is recommended"
            yield key, text, f"write a number from {SMALLEST_PADDING} to {LARGEST_PADDING}"
    yield from _equal_sizes(values)
    if values.s4 and not keepalive_padding:
        text = "keepalives are not padded, so a receiver with s4 above 0 drops them"
        yield "s4", text, "write keepalive_padding = true, or s4 = 0 on both sides"


def _equal_sizes(values: Parameters) -> Iterator[_Found]:
    for (key, length, name), (other_key, other_length, other_name) in itertools.combinations(_HANDSHAKE, 2):
        padding: int = getattr(values, key)
        other: int = getattr(values, other_key)
        if padding + length == other + other_length and (padding or other):
            text = f"with {other} the {other_name} is as long as the {name}, {padding + length} bytes"
            yield other_key, text, f"write another number, as in {other_key} = {_another(values, other_key)}"


def _another(values: Parameters, key: str) -> int:
    lengths = {name: length for name, length, _ in _HANDSHAKE}
    taken = {getattr(values, name) + length for name, length in lengths.items() if name != key}
    current: int = getattr(values, key)
    start = current + 1 if current < LARGEST_PADDING - len(lengths) else SMALLEST_PADDING
    return next(number for number in itertools.count(start) if number + lengths[key] not in taken)


def _warn_headers(values: Parameters) -> Iterator[_Found]:
    usual = [key for key in HEADER_KEYS if getattr(values, key) == getattr(DEFAULT, key)]
    if len(usual) == len(HEADER_KEYS):
        text = "the headers are WireGuard's own, which every filter knows"
        yield (
            "h1",
            text,
            "write four ranges, as in " + ", ".join(f'{k} = "{_free_range(k)}"' for k in HEADER_KEYS),
        )
        return
    for key, header in zip(HEADER_KEYS, values.headers, strict=True):
        if header.start <= len(HEADER_KEYS) and header.end >= 1:
            text = f"{header} has numbers from 1 to 4, which are WireGuard's own"
            yield key, text, f'write a range above 4, as in {key} = "{_free_range(key)}"'
        elif header.end > LARGEST_HEADER:
            text = f"{header} has numbers that some programs take for negative ones"
            yield key, text, f"stay between 5 and {LARGEST_HEADER}"
        if key != "h4" and values.s4 and header.width > WIDE_RANGE:
            share = 2**32 / header.width
            text = f"{header} is so wide that of data packets as long as a handshake message one in {share:.0f} is lost"
            yield key, text, f"write a range of {WIDE_RANGE} numbers or less, or s4 = 0"


def _warn_signatures(values: Parameters, room: int) -> Iterator[_Found]:
    for key, chain in zip(SIGNATURES, values.signatures, strict=True):
        if chain is None:
            continue
        if not chain.length:
            text = "makes an empty datagram, and a receiver may lose the datagram after an empty one"
            yield key, text, "leave it out, or write tags, as in <b 0xc0ff><r 16>"
        elif chain.drawn:
            text = "is all random, so it resembles no protocol"
            yield (
                key,
                text,
                "begin with the bytes of one, as in <r 2><b 0x01000001000000000000>, which is a DNS query",
            )
        if chain.length > room:
            yield key, f"{chain.length} bytes are {_too_long(room)}", f"make it {room} bytes or less"


def _too_long(room: int) -> str:
    return f"more than the {room} bytes that the path takes in one piece, and fragments give us away"
