"""Good parameters, made at random: no two deployments look alike, and the lint finds nothing to say."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TypeVar

import attrs

from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.randomness import Randomness, uniform
from awg_obfs.protocol.sizes import COOKIE_REPLY_LENGTH, INITIATION_LENGTH, RESPONSE_LENGTH, largest_s4
from awg_obfs.protocol.tags import TagChain

# Within what the READMEs of the reference and of the kernel module recommend (spec, section 10).
JC = (4, 8)
JMIN = (8, 40)
JUNK_SPREAD = (30, 60)
PADDING = (15, 150)
SMALLEST_HEADER, LARGEST_HEADER = 5, 2**31 - 1
# Narrow enough that hardly a data packet is taken for a handshake message, wide enough to be no fixed number.
HEADER_WIDTH = (100_000, 1_000_000)
# Every IPv6 path, and nearly every IPv4 one, takes so much.
SAFE_PATH_MTU = 1280
# The smallest number that hides where the header is.
SMALLEST_S4 = 4

# Names that devices ask for by themselves, all day.
_NAMES = (
    "www.google.com",
    "connectivitycheck.gstatic.com",
    "captive.apple.com",
    "www.msftconnecttest.com",
    "detectportal.firefox.com",
    "www.cloudflare.com",
    "time.apple.com",
    "clients4.google.com",
)
# A, AAAA and HTTPS.
_QUERY_TYPES = (1, 28, 65)

# A QUIC client's first datagram has 1200 bytes or more (RFC 9000, section 14.1); so many pass IPv6's smallest path.
_QUIC_DATAGRAM = (1200, SAFE_PATH_MTU - 48)


_T = TypeVar("_T")


class Preset(enum.StrEnum):
    """What I1 is shaped like."""

    DNS = "dns"
    QUIC = "quic"
    STUN = "stun"


def random_parameters(random: Randomness, preset: Preset = Preset.DNS) -> Parameters:
    """Return parameters for both sides of a deployment, whose I1 is shaped like *preset*."""
    jmin = _between(JMIN, random)
    s1, s2, s3 = _paddings(random)
    h1, h2, h3, h4 = _headers(random)
    return Parameters(
        jc=_between(JC, random),
        jmin=jmin,
        jmax=jmin + _between(JUNK_SPREAD, random),
        s1=s1,
        s2=s2,
        s3=s3,
        s4=_between((SMALLEST_S4, largest_s4(SAFE_PATH_MTU)), random),
        h1=h1,
        h2=h2,
        h3=h3,
        h4=h4,
        i1=signature(preset, random),
    )


def server_side(parameters: Parameters) -> Parameters:
    """Return what the server needs of *parameters*: junk and signature packets are the client's business."""
    return attrs.evolve(parameters, jc=0, jmin=0, jmax=0, i1=None, i2=None, i3=None, i4=None, i5=None)


def signature(preset: Preset, random: Randomness) -> TagChain:
    """Return a chain whose packets are shaped like *preset*: fixed where the protocol is, else fresh each time."""
    match preset:
        case Preset.DNS:
            text = _dns_query(random)
        case Preset.QUIC:
            text = _quic_initial(random)
        case Preset.STUN:
            text = _stun_request()
    return TagChain.parse(text, strict=True)


def _dns_query(random: Randomness) -> str:
    """RFC 1035, section 4.1: an id and one question, as the resolver of a C library sends it.

    RFC 6891's record would be as usual, but its count puts the bytes of QUIC's version 1 into the header.
    """
    labels = _pick(_NAMES, random).encode("ascii").split(b".")
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    header = bytes.fromhex("0100 0001 0000 0000 0000")
    question = name + _pick(_QUERY_TYPES, random).to_bytes(2, "big") + b"\0\1"
    return f"<r 2><b 0x{(header + question).hex()}>"


def _quic_initial(random: Randomness) -> str:
    """RFC 9000, section 17.2.2: an Initial of version 1; what QUIC encrypts is random here."""
    length = _between(_QUIC_DATAGRAM, random)
    # Four bits of the first byte are protected, so anything; a client keeps them for one connection only.
    first = 0xC0 | uniform(16, random)
    # Flags, version, connection id with its length, source connection id, token, length.
    rest = length - (1 + 4 + 9 + 1 + 1 + 2)
    # No source connection id and no token, as browsers have it; then the length of the rest, in two bytes.
    return f"<b 0x{first:02x}0000000108><r 8><b 0x0000{0x4000 | rest:04x}><r {rest}>"


def _stun_request() -> str:
    """RFC 8489: a binding request, as two browsers send them before a call (RFC 8445, section 7.1)."""
    username = "<b 0x00060009><rc 4><b 0x3a><rc 4><b 0x000000>"
    priority = "<b 0x002400046e><r 3>"
    controlling = "<b 0x802a0008><r 8>"
    integrity = "<b 0x00080014><r 20>"
    attributes = username + priority + controlling + integrity
    length = TagChain.parse(attributes, strict=True).length
    return f"<b 0x0001{length:04x}2112a442><r 12>{attributes}"


def _paddings(random: Randomness) -> tuple[int, int, int]:
    while True:
        s1, s2, s3 = (_between(PADDING, random) for _ in range(3))
        lengths = {s1 + INITIATION_LENGTH, s2 + RESPONSE_LENGTH, s3 + COOKIE_REPLY_LENGTH}
        # Three messages of three lengths, so that none is taken for another.
        if len(lengths) == 3:
            return s1, s2, s3


def _headers(random: Randomness) -> Sequence[HeaderRange]:
    """Return four ranges, each somewhere in a quarter of the numbers, the quarters in any order."""
    quarter = (LARGEST_HEADER - SMALLEST_HEADER + 1) // 4
    quarters = [SMALLEST_HEADER + place * quarter for place in range(4)]
    ranges: list[HeaderRange] = []
    while quarters:
        first = quarters.pop(uniform(len(quarters), random))
        width = _between(HEADER_WIDTH, random)
        start = first + uniform(quarter - width + 1, random)
        ranges.append(HeaderRange(start, start + width - 1))
    return ranges


def _between(bounds: tuple[int, int], random: Randomness) -> int:
    smallest, largest = bounds
    return smallest + uniform(largest - smallest + 1, random)


def _pick(choices: Sequence[_T], random: Randomness) -> _T:
    return choices[uniform(len(choices), random)]
