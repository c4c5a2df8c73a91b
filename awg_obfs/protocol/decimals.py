"""Decimal numbers as Go reads them: ``strconv.Atoi`` and ``strconv.ParseUint``.

``int()`` would take blanks, underscores and the digits of every script.
"""

from __future__ import annotations

import re

from awg_obfs.errors import NumberError, NumberFault

MAX_INT64 = 2**63 - 1
MAX_UINT64 = 2**64 - 1
MAX_UINT32 = 2**32 - 1
MAX_UINT16 = 2**16 - 1

_DIGITS = re.compile("[0-9]*")


def parse_unsigned(text: str, maximum: int = MAX_UINT64) -> int:
    """Return the number that *text* is: digits only, leading zeros allowed.

    Raises:
      NumberError: it is none, or is above *maximum*. Go reads from the left and stops at the first fault, so
        ``99999999999999999999x`` is too large before it is no number.

    """
    found = _DIGITS.match(text)
    digits = found[0] if found else ""
    # Python refuses to convert very long texts; what has more digits than the maximum is above it.
    significant = digits.lstrip("0")
    if len(significant) > len(str(maximum)) or int(significant or "0") > maximum:
        raise NumberError(text, NumberFault.RANGE)
    if not digits or len(digits) < len(text):
        raise NumberError(text, NumberFault.SYNTAX)
    return int(significant or "0")


def parse_signed(text: str) -> int:
    """Return the 64-bit number that *text* is, with one sign before it at the most.

    Raises:
      NumberError: it is none, or does not fit.

    """
    negative = text.startswith("-")
    digits = text[1:] if text.startswith(("+", "-")) else text
    try:
        value = parse_unsigned(digits)
    except NumberError as exc:
        raise NumberError(text, exc.fault) from None
    if value > MAX_INT64 + negative:
        raise NumberError(text, NumberFault.RANGE)
    return -value if negative else value
