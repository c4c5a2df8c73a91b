"""Read a capture of an AmneziaWG handshake without any code of ours: ``python awg_capture.py CAPTURE client.toml``.

CAPTURE has a JSON object a line (`benchmarks.udp_relay --record`). What amneziawg-go e796d47 would have put on the
wire is known from client.toml's ``[awg]`` alone; every deviation is printed, and makes the exit code 1.
"""

from __future__ import annotations

import json
import re
import struct
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

INITIATION, RESPONSE, TRANSPORT = 148, 92, 32
# RFC 9000, section 15, RFC 9369, and the drafts that servers still answer.
QUIC_VERSIONS = [bytes.fromhex(text) for text in ("00000001", "6b3343cf", "ff00001d", "ff000020")]
# What TLS and QUIC would show in clear: ALPN, and the names that are asked for or certified.
SECRETS = [b"sproxy", b"localhost", b"session", b"127.0.0.1"]

# How far from a datagram's beginning a version is searched.
REACH = 200

_TAG = re.compile(r"<(b|r|rc|rd|t)\s*(?:0x)?([0-9a-fA-F]*)>")

Values = Mapping[str, object]


def signature_pattern(chain: str) -> re.Pattern[bytes]:
    """Return what a packet of *chain* looks like: fixed bytes where the chain has them."""
    parts: list[bytes] = []
    for kind, argument in _TAG.findall(chain):
        if kind == "b":
            parts.append(re.escape(bytes.fromhex(argument)))
        else:
            count = 4 if kind == "t" else int(argument)
            letters = {"rc": rb"[a-zA-Z]", "rd": rb"[0-9]"}.get(kind, rb".")
            parts.append(letters + b"{%d}" % count)
    return re.compile(b"".join(parts), re.DOTALL)


def bounds(text: object) -> tuple[int, int]:
    """Return both ends of a header range."""
    first, _, last = str(text).partition("-")
    return int(first), int(last or first)


def header_fits(datagram: bytes, offset: int, text: object) -> bool:
    """Return whether the number at *offset* lies in a range (little-endian: specification, section 3)."""
    if len(datagram) < offset + 4:
        return False
    low, high = bounds(text)
    return low <= struct.unpack_from("<I", datagram, offset)[0] <= high


def number(awg: Values, key: str) -> int:
    """Return a parameter that is 0 when it is absent."""
    return int(str(awg.get(key, 0)))


def check_opening(sent: Sequence[bytes], awg: Values) -> Iterator[str]:
    """Say what is wrong with what the client sent before the server's first answer."""
    chains = [str(awg[f"i{n}"]) for n in range(1, 6) if f"i{n}" in awg]
    junk, padding = number(awg, "jc"), number(awg, "s1")
    expected = len(chains) + junk + 1
    if len(sent) != expected:
        yield f"{len(sent)} datagrams came before the answer, not {len(chains)} + {junk} + 1"
        return
    for place, chain in enumerate(chains):
        if not signature_pattern(chain).fullmatch(sent[place]):
            yield f"datagram {place + 1} is not what its chain makes: {sent[place].hex()}"
    low, high = number(awg, "jmin"), number(awg, "jmax")
    for place, datagram in enumerate(sent[len(chains) : -1], len(chains) + 1):
        if not low <= len(datagram) <= high:
            yield f"datagram {place} is junk of {len(datagram)} bytes, not {low} to {high}"
    initiation = sent[-1]
    if len(initiation) != padding + INITIATION:
        yield f"the initiation has {len(initiation)} bytes, not {padding} + {INITIATION}"
    elif not header_fits(initiation, padding, awg.get("h1", 1)):
        yield "the initiation's header is not in H1"


def check_answer(answer: bytes, awg: Values) -> Iterator[str]:
    """Say what is wrong with the server's first datagram."""
    padding = number(awg, "s2")
    if len(answer) != padding + RESPONSE:
        yield f"the answer has {len(answer)} bytes, not {padding} + {RESPONSE}"
    elif not header_fits(answer, padding, awg.get("h2", 2)):
        yield "the answer's header is not in H2"


def check_transport(datagrams: Sequence[bytes], awg: Values) -> Iterator[str]:
    """Say what is wrong with what follows the handshake: all of it is sealed."""
    padding = number(awg, "s4")
    for place, datagram in enumerate(datagrams, 1):
        if len(datagram) < padding + TRANSPORT or not header_fits(datagram, padding, awg.get("h4", 4)):
            yield f"datagram {place} after the handshake is no data: {len(datagram)} bytes"


def check_clear_text(datagrams: Sequence[bytes]) -> Iterator[str]:
    """Say where anything of QUIC, TLS or the destination shows."""
    for place, datagram in enumerate(datagrams, 1):
        for version in QUIC_VERSIONS:
            # Behind the first bytes, and whatever padding hides it; four bytes turn up by chance further on.
            if version in datagram[:REACH]:
                yield f"datagram {place} has the bytes of a QUIC version: {datagram[:REACH].hex()}"
        for secret in SECRETS:
            if secret in datagram:
                yield f"datagram {place} has {secret!r} in clear"


def without_counter(datagram: bytes, padding: int) -> bytes:
    """Return a transport datagram with other bytes for its counter (specification, section 6.2).

    The counter's upper bytes are zero, and the sealed byte behind them is 1 now and then.
    """
    counter = padding + 8
    return datagram[:counter] + bytes([0xFF]) * 8 + datagram[counter + 8 :]


def findings(entries: Sequence[tuple[str, bytes]], awg: Values) -> Iterator[str]:
    """Say everything that is wrong with a capture."""
    ways = [way for way, _ in entries]
    if "to-client" not in ways:
        yield "the server never answered"
        return
    first = ways.index("to-client")
    datagrams = [datagram for _, datagram in entries]
    handshake, transport = datagrams[: first + 1], datagrams[first + 1 :]
    yield from check_opening(handshake[:-1], awg)
    yield from check_answer(handshake[-1], awg)
    yield from check_transport(transport, awg)
    padding = number(awg, "s4")
    yield from check_clear_text([*handshake, *(without_counter(each, padding) for each in transport)])


def main() -> int:
    """Read the files that the command line names."""
    capture, client = map(Path, sys.argv[1:])
    lines = [json.loads(line) for line in capture.read_text(encoding="ascii").splitlines()]
    entries = [(line["way"], bytes.fromhex(line["datagram"])) for line in lines]
    wrong = list(findings(entries, tomllib.loads(client.read_text(encoding="utf-8"))["awg"]))
    for finding in wrong:
        print(finding)  # noqa: T201 - it is a script
    print(f"{len(entries)} datagrams read")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
