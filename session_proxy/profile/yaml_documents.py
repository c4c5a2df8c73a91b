"""YAML as plain data, with the scalars of YAML 1.2 and without its traps.

PyYAML follows YAML 1.1, where ``no`` is false, ``0443`` is 291 and ``22:30`` is 1350; nothing here is turned
into something else, so such text stays text. Keys that stand twice are refused, aliases are bounded.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence

import attrs
import yaml

from session_proxy.profile.secret_sources import InvalidValueError

# Values that aliases may repeat, all together: a few hundred bytes can name billions (the "billion laughs").
MAX_REPEATED = 10_000

MERGE = "<<"


class YamlProblemError(InvalidValueError):
    """The text is not YAML that we read; *line* counts from 1."""

    def __init__(self, message: str, fix: str, line: int | None) -> None:
        self.line = line
        super().__init__(message, fix)


# The plain scalars of YAML 1.2's core schema (section 10.3.2) that are not text.
NULL = re.compile(r"~|null|Null|NULL|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+)")

# A base loader resolves no scalars; the C one is ten times faster, and not in every build.
LOADER: type[yaml.BaseLoader] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

STR_TAG = "tag:yaml.org,2002:str"
MAP_TAG = "tag:yaml.org,2002:map"
SEQ_TAG = "tag:yaml.org,2002:seq"


def parse_yaml(text: str, max_depth: int) -> dict[str, object]:
    """Return what *text* says, at most *max_depth* levels deep; an empty document is an empty table.

    Raises:
      YamlProblemError: *text* is not YAML, or uses what a profile may not.

    """
    try:
        _check_depth(text, max_depth)
        root = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as exc:
        raise _syntax_problem(exc, text.splitlines()) from None
    except yaml.YAMLError:
        raise YamlProblemError("holds a character that YAML does not allow", "remove it", None) from None
    if root is None:
        return {}
    value = _Builder(max_depth).build(root)
    if not isinstance(value, dict):
        raise YamlProblemError("is not a table of keys", "write KEY: VALUE lines", _line(root))
    return typing.cast("dict[str, object]", value)


def _check_depth(text: str, max_depth: int) -> None:
    """Refuse deep nesting before anything recurses: the C loader would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > max_depth:
                fix = f"use at most {max_depth} levels"
                raise YamlProblemError("is nested too deeply", fix, _line(event))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(thing: yaml.Node | yaml.Event) -> int | None:
    mark = thing.start_mark
    return None if mark is None else mark.line + 1


def _syntax_problem(exc: yaml.MarkedYAMLError, lines: Sequence[str]) -> YamlProblemError:
    mark = exc.problem_mark or exc.context_mark
    line = mark.line + 1 if mark is not None else None
    said = exc.problem or exc.context or "cannot be read"
    if line is not None and line <= len(lines) and re.match(r" *\t", lines[line - 1]):
        return YamlProblemError("a tab indents this line", "indent with spaces", line)
    if "expected a single document" in (exc.context or ""):
        return YamlProblemError("a second document starts here", "keep one, without ---", line)
    if "undefined alias" in said:
        return YamlProblemError(
            said, "define the anchor before it, or put text that starts with * into quotes", line
        )
    if "mapping values are not allowed" in said:
        return YamlProblemError(
            "a colon is where no key can be", "indent the line like its neighbours, or quote it", line
        )
    return YamlProblemError(f"not YAML: {said}", "check the indentation and the quotes round here", line)


@attrs.define(eq=False)
class _Builder:
    """Builds plain data from nodes, counting what aliases repeat."""

    max_depth: int
    _repeated: int = attrs.field(default=0, init=False)
    _built: set[int] = attrs.field(factory=set[int], init=False)
    _open: list[int] = attrs.field(factory=list[int], init=False)

    def build(self, node: yaml.Node) -> object:
        if id(node) in self._open:
            raise YamlProblemError(
                "an alias stands within its own anchor", "write the value out", _line(node)
            )
        if len(self._open) >= self.max_depth:
            raise YamlProblemError(
                "is nested too deeply", f"use at most {self.max_depth} levels", _line(node)
            )
        if id(node) in self._built:
            self._repeated += 1
            if self._repeated > MAX_REPEATED:
                raise YamlProblemError(
                    f"aliases repeat more than {MAX_REPEATED} values", "write the values out", _line(node)
                )
        self._built.add(id(node))
        self._open.append(id(node))
        try:
            return self._value(node)
        finally:
            self._open.pop()

    def _value(self, node: yaml.Node) -> object:
        match node:
            case yaml.MappingNode(tag=tag) if tag == MAP_TAG:
                return self._table(node)
            case yaml.SequenceNode(tag=tag) if tag == SEQ_TAG:
                return [self.build(item) for item in node.value]
            case yaml.ScalarNode(tag=tag) if tag == STR_TAG:
                return node.value if node.style else _scalar(node.value)
            case _:
                raise YamlProblemError(f"the tag {node.tag} is not known", "remove it", _line(node))

    def _table(self, node: yaml.MappingNode) -> dict[str, object]:
        table: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise YamlProblemError("a key is not text", "write KEY: VALUE", _line(key_node))
            if key == MERGE:
                raise YamlProblemError("<< merges are not supported", "write the keys out", _line(key_node))
            if key in table:
                raise YamlProblemError(f"{key} stands twice", "keep one of them", _line(key_node))
            table[key] = self.build(value_node)
        return table


def _scalar(text: str) -> object:
    if NULL.fullmatch(text):
        return None
    if BOOL.fullmatch(text):
        return text.lower() == "true"
    # Nothing in a profile has 20 digits, and Python refuses to read some thousands of them.
    if INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text)
    return text
