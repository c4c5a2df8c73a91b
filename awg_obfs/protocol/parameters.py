"""What obfuscates a session: junk, paddings, header ranges and signature packets, as one value."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

import attrs

from awg_obfs.errors import HeaderRangeError, KeyProblem, NumberError, ParametersError, TagChainError, shown
from awg_obfs.protocol.decimals import MAX_INT64, parse_signed
from awg_obfs.protocol.headers import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, HeaderRange
from awg_obfs.protocol.tags import TagChain

JUNK_KEYS = ("jc", "jmin", "jmax")
PADDING_KEYS = ("s1", "s2", "s3", "s4")
HEADER_KEYS = ("h1", "h2", "h3", "h4")
SIGNATURE_KEYS = ("i1", "i2", "i3", "i4", "i5")
KEYS = JUNK_KEYS + PADDING_KEYS + HEADER_KEYS + SIGNATURE_KEYS


@attrs.frozen
class Parameters:
    """The obfuscation of one device, the same for all its peers. With none given it is plain WireGuard.

    *s1* to *s4* and *h1* to *h4* belong to initiation, response, cookie reply and transport, in this order, and must
    match the other side's; *jc*, *jmin*, *jmax* and *i1* to *i5* concern what we send only.

    Attributes:
      jc: How many junk datagrams go before each handshake initiation; 4 to 12 are recommended.
      jmin: The least bytes of a junk datagram.
      jmax: The most bytes of a junk datagram.
      s1: Random bytes before an initiation; the same on both sides, as are all of `s1` to `h4`.
      s2: Random bytes before a response.
      s3: Random bytes before a cookie reply.
      s4: Random bytes before each data packet.
      h1: The numbers that mark an initiation: one, or a range such as `"100000-200000"`.
      h2: The numbers that mark a response.
      h3: The numbers that mark a cookie reply.
      h4: The numbers that mark a data packet.
      i1: A datagram that goes before the junk, made of tags: `<b 0xHEX>` bytes, `<r N>` random bytes, `<rd N>`
          digits, `<rc N>` letters, `<t>` the time, `<c>` a counter.
      i2: A second one.
      i3: A third.
      i4: A fourth.
      i5: A fifth.

    """

    jc: int = 0
    jmin: int = 0
    jmax: int = 0
    s1: int = 0
    s2: int = 0
    s3: int = 0
    s4: int = 0
    h1: HeaderRange = INITIATION
    h2: HeaderRange = RESPONSE
    h3: HeaderRange = COOKIE_REPLY
    h4: HeaderRange = TRANSPORT
    i1: TagChain | None = None
    i2: TagChain | None = None
    i3: TagChain | None = None
    i4: TagChain | None = None
    i5: TagChain | None = None

    @property
    def paddings(self) -> tuple[int, int, int, int]:
        """S1 to S4."""
        return self.s1, self.s2, self.s3, self.s4

    @property
    def headers(self) -> tuple[HeaderRange, HeaderRange, HeaderRange, HeaderRange]:
        """H1 to H4."""
        return self.h1, self.h2, self.h3, self.h4

    @property
    def signatures(self) -> tuple[TagChain | None, ...]:
        """I1 to I5, each in its place."""
        return self.i1, self.i2, self.i3, self.i4, self.i5

    @property
    def chains(self) -> tuple[TagChain, ...]:
        """Those of I1 to I5 that there are, in the order they are sent."""
        return tuple(chain for chain in self.signatures if chain is not None)

    def as_mapping(self) -> dict[str, int | str]:
        """Return what is not at its default, by key, as `parameters_from_mapping` takes it."""
        mapping: dict[str, int | str] = {}
        for key in JUNK_KEYS + PADDING_KEYS:
            if number := getattr(self, key):
                mapping[key] = number
        for key, header, usual in zip(HEADER_KEYS, self.headers, DEFAULT.headers, strict=True):
            if header != usual:
                mapping[key] = header.start if header.width == 1 else str(header)
        for key, chain in zip(SIGNATURE_KEYS, self.signatures, strict=True):
            if chain is not None:
                mapping[key] = chain.text
        return mapping


DEFAULT = Parameters()


def parameters_from_mapping(values: Mapping[str, object]) -> Parameters:
    """Return the parameters that a file's table gives: lower-case keys; numbers, or text as awg(8) takes it.

    Each value is judged by itself; `awg_obfs.protocol.lint` judges them together.

    Raises:
      ParametersError: it lists every fault, with its key and with what to write instead.

    """
    problems: list[KeyProblem] = []
    fields: dict[str, object] = {}
    for key, value in values.items():
        reader = _READERS.get(key)
        if reader is None:
            problems.append(_unknown(key))
            continue
        read = reader(key, value)
        if isinstance(read, KeyProblem):
            problems.append(read)
        else:
            fields[key] = read
    if problems:
        raise ParametersError(problems)
    return attrs.evolve(DEFAULT, **fields)


def _unknown(key: str) -> KeyProblem:
    # Only a slip of the shift key or of a finger: s5 is not a slip for any of them.
    close = [known for known in KEYS if known == key.lower()] or difflib.get_close_matches(key, KEYS, 1, 0.75)
    fix = (
        f"did you mean {close[0]}?" if close else "there are jc, jmin, jmax, s1 to s4, h1 to h4 and i1 to i5"
    )
    return KeyProblem(key, "there is no such parameter", fix)


def _integer(key: str, value: object) -> int | KeyProblem:
    if isinstance(value, str):
        try:
            return parse_signed(value)
        except NumberError as exc:
            return KeyProblem(key, str(exc), f"write a number, as in {key} = {_EXAMPLES[key]}")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return KeyProblem(
        key, f"must be a number, not {_kind(value)}", f"write it as in {key} = {_EXAMPLES[key]}"
    )


def _junk(key: str, value: object) -> int | KeyProblem:
    number = _integer(key, value)
    if isinstance(number, KeyProblem) or 0 < number <= MAX_INT64:
        return number
    if number == 0:
        return KeyProblem(key, "must not be 0", "leave it out: then it is 0")
    return KeyProblem(
        key, f"{number} is out of range", f"write a number above 0, as in {key} = {_EXAMPLES[key]}"
    )


def _padding(key: str, value: object) -> int | KeyProblem:
    number = _integer(key, value)
    if isinstance(number, KeyProblem) or 0 <= number <= MAX_INT64:
        return number
    return KeyProblem(key, f"{number} is out of range", f"write 0 or more, as in {key} = {_EXAMPLES[key]}")


def _header(key: str, value: object) -> HeaderRange | KeyProblem:
    fix = f'write a number or a range of them up to 4294967295, as in {key} = "{_EXAMPLES[key]}"'
    if isinstance(value, bool) or not isinstance(value, str | int):
        return KeyProblem(key, f"must be a number or a range, not {_kind(value)}", fix)
    try:
        return HeaderRange.parse(str(value))
    except HeaderRangeError as exc:
        return KeyProblem(key, str(exc), fix)


def _signature(key: str, value: object) -> TagChain | KeyProblem:
    if not isinstance(value, str):
        return KeyProblem(
            key, f"must be text, not {_kind(value)}", f'write tags, as in {key} = "<b 0xc0ff><r 16>"'
        )
    try:
        return TagChain.parse(value)
    except TagChainError as exc:
        return KeyProblem(key, str(exc), "the tags are <b HEX>, <r N>, <rd N>, <rc N>, <t> and <c>")


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {"str": "text", "int": "a number", "float": "a fraction", "list": "a list", "dict": "a table"}
    return names.get(type(value).__name__, shown(type(value).__name__))


_EXAMPLES: Mapping[str, str] = {
    "jc": "4",
    "jmin": "40",
    "jmax": "70",
    "s1": "20",
    "s2": "30",
    "s3": "25",
    "s4": "12",
    "h1": "100000-200000",
    "h2": "300000-400000",
    "h3": "500000-600000",
    "h4": "700000-800000",
}

_READERS: Mapping[str, Callable[[str, object], object]] = {
    **dict.fromkeys(JUNK_KEYS, _junk),
    **dict.fromkeys(PADDING_KEYS, _padding),
    **dict.fromkeys(HEADER_KEYS, _header),
    **dict.fromkeys(SIGNATURE_KEYS, _signature),
}
