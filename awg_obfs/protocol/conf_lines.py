"""The lines of an AmneziaWG ``.conf`` file, taken apart as awg(8) does it.

Keys are matched in any case, ``#`` begins a comment anywhere, and blanks mean nothing, except within the values of I1
to I5; there too, where the line itself begins with a blank (spec, section 10.1).
"""

from __future__ import annotations

import re

import attrs

from awg_obfs.errors import LineProblem, shown
from awg_obfs.protocol.parameters import SIGNATURE_KEYS

# What awg(8) takes for blanks.
BLANKS = " \t\n\v\f\r"

_BLANKS = re.compile(f"[{BLANKS}]+")

# More than the longest key has. What is longer may hold a secret, behind a slip of the pen such as ":" for "=".
LONGEST_NAME = 20
_NAME = re.compile(f"[A-Za-z0-9]{{1,{LONGEST_NAME}}}")


@attrs.frozen
class Field:
    """One line ``NAME = VALUE``.

    *value* is what awg(8) makes of the value; *text* is the value with its blanks, for what awg-quick(8) reads.
    """

    line: int
    name: str
    value: str = attrs.field(repr=False)
    text: str = attrs.field(repr=False)

    @property
    def key(self) -> str:
        """The name as it is looked up."""
        return self.name.lower()


@attrs.define(eq=False)
class Section:
    """One section, and the line it begins with."""

    line: int
    fields: list[Field] = attrs.Factory(list[Field])


@attrs.frozen
class Sections:
    """A file taken apart: one interface (all sections of this name together), the peers, and what is neither."""

    interface: Section
    peers: tuple[Section, ...]
    problems: tuple[LineProblem, ...]


def split(content: str) -> Sections:
    """Return the sections of a file."""
    interface = Section(1)
    peers: list[Section] = []
    problems: list[LineProblem] = []
    section: Section | None = None
    for number, line in enumerate(content.removeprefix("\ufeff").split("\n"), 1):
        text = line.partition("#")[0]
        compact = _BLANKS.sub("", text)
        if not compact:
            continue
        if compact.lower() == "[interface]":
            section = interface
        elif compact.lower() == "[peer]":
            section = Section(number)
            peers.append(section)
        elif "=" not in compact:
            what = shown(compact) if len(compact) <= LONGEST_NAME else "this"
            problems.append(LineProblem(number, f"{what} is no section and no KEY = VALUE", "remove it"))
        elif section is None:
            problems.append(
                LineProblem(number, "this stands in no section", "begin the file with [Interface]")
            )
        elif not _NAME.fullmatch(compact.partition("=")[0]):
            problems.append(LineProblem(number, "what stands before = is no key", "write KEY = VALUE"))
        else:
            section.fields.append(_field(number, text, compact))
    return Sections(interface, tuple(peers), tuple(problems))


def _field(number: int, text: str, compact: str) -> Field:
    name, _, value = compact.partition("=")
    whole = text.partition("=")[2].strip(BLANKS)
    if text[:2].lower() in SIGNATURE_KEYS:
        value = whole
    return Field(number, name, value, whole)
