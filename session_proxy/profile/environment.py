"""``SPROXY_*`` variables, which override the scalars of a file: ``SPROXY_LIMITS_CONNECT=5``."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping

import attrs

from session_proxy.profile import shape, values

PREFIX = "SPROXY"

Table = Mapping[str, object]


@attrs.frozen
class Scalar:
    """A value of a file that the variable *name* may override; *kind* is its type."""

    name: str
    path: tuple[str, ...]
    kind: object


def scalars(cls: type, document: Table) -> list[Scalar]:
    """Return every value that a variable may override in *document*, a file of class *cls*.

    A table whose keys people choose, such as ``upstreams``, counts with the keys that it has. Lists of tables
    do not count: their items have no names.
    """
    return list(_scalars(cls, document, ()))


def _scalars(cls: type, table: Table, path: tuple[str, ...]) -> Iterator[Scalar]:
    for key, attribute in shape.keys(cls).items():
        kind, here = attribute.type, (*path, key)
        inner = as_table(table.get(key))
        if shape.is_table_of(kind):
            members = list(shape.tables_in(typing.get_args(kind)[1]))
            yield from (
                scalar
                for name, item in inner.items()
                for member in members
                for scalar in _scalars(member, as_table(item), (*here, name))
            )
        elif tables := list(shape.tables_in(kind)):
            yield from (scalar for member in tables for scalar in _scalars(member, inner, here))
        elif not (shape.is_list(kind) and shape.is_table(typing.get_args(kind)[0])):
            yield Scalar("_".join([PREFIX, *(re.sub(r"\W", "_", step).upper() for step in here)]), here, kind)


def override(
    document: Table, cls: type, environ: Mapping[str, str]
) -> tuple[dict[str, object], dict[str, str]]:
    """Return *document* with the variables of *environ* laid over it.

    The second value maps the path of each overridden value to its variable, so that problems name that.
    Variables hold text: numbers, true and false are read here, lists are split at commas.
    """
    merged = dict(document)
    labels: dict[str, str] = {}
    for scalar in scalars(cls, document):
        text = environ.get(scalar.name)
        if text is not None:
            merged = replaced(merged, scalar.path, _from_text(text, scalar.kind))
            labels[shape.path_text(scalar.path)] = scalar.name
    return merged, labels


def unknown_variables(document: Table, cls: type, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each variable of *environ* that looks like a mistyped override.

    Others with our prefix are left alone: profiles name such variables as secrets.
    """
    known = {scalar.name for scalar in scalars(cls, document)}
    referenced = set(re.findall(r"env:(\w+)", str(document)))
    for name in sorted(environ.keys() - known - referenced):
        meant = values.suggest(name, known) if name.startswith(f"{PREFIX}_") else None
        if meant is not None:
            yield f"the variable {name} overrides nothing; did you mean {meant}?"


def replaced(table: Table, path: typing.Sequence[str], value: object) -> dict[str, object]:
    """Return a copy of *table* in which *value* stands at *path*."""
    first, *rest = path
    inner = replaced(as_table(table.get(first)), rest, value) if rest else value
    return {**table, first: inner}


def as_table(value: object) -> Table:
    """Return *value* where it is a table, else an empty one."""
    return typing.cast("Table", value) if isinstance(value, Mapping) else {}


def _from_text(text: str, kind: object) -> object:
    (member, *others) = shape.union_members(kind)
    if others:
        return text
    if shape.is_list(member):
        return [item.strip() for item in text.split(",")]
    if member is bool:
        return {"true": True, "false": False}.get(text, text)
    if (member is int or member is float) and re.fullmatch(r"[-+]?\d+", text, re.ASCII) and len(text) < 20:
        return int(text)
    if member is float and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)", text, re.ASCII):
        return float(text)
    return text
