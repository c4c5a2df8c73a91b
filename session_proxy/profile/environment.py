"""``SPROXY_*`` variables, which override the scalars of a file: ``SPROXY_LIMITS_CONNECT=5``."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping

import attrs

from session_proxy.profile import shape, values

PREFIX = "SPROXY"

# The table whose keys people choose.
UPSTREAMS = "upstreams"

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
            yield Scalar(variable(here), here, kind)


def variable(path: typing.Iterable[str]) -> str:
    """Return the name of the variable for what stands at *path*."""
    return "_".join([PREFIX, *(re.sub(r"\W", "_", step).upper() for step in path)])


def override(
    document: Table, cls: type, environ: Mapping[str, str]
) -> tuple[dict[str, object], dict[str, str]]:
    """Return *document* with the variables of *environ* laid over it.

    The second value maps the path of each overridden value to its variable, so that problems name that. In a
    table that the document does not have, every value has its variable there: one may be missing.
    Variables hold text: numbers, true and false are read here, lists are split at commas.
    """
    merged = dict(document)
    all_scalars = scalars(cls, document)
    given = [scalar for scalar in all_scalars if scalar.name in environ]
    for scalar in given:
        merged = replaced(merged, scalar.path, _from_text(environ[scalar.name], scalar.kind))
    made = {scalar.path[:-1] for scalar in given if not _has_table(document, scalar.path[:-1])}
    return merged, {
        shape.path_text(scalar.path): scalar.name
        for scalar in all_scalars
        if scalar in given or scalar.path[:-1] in made
    }


def _has_table(document: Table, path: typing.Sequence[str]) -> bool:
    for step in path:
        if step not in document:
            return False
        document = as_table(document[step])
    return True


def unknown_variables(document: Table, cls: type, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each variable of *environ* that looks like a mistyped override.

    Others with our prefix are left alone: profiles name such variables as secrets.
    """
    known = scalars(cls, document)
    referenced = set(re.findall(r"env:(\w+)", str(document)))
    upstreams = ", ".join(as_table(document.get(UPSTREAMS)))
    for name in sorted(environ.keys() - {scalar.name for scalar in known} - referenced):
        if name.startswith(f"{variable([UPSTREAMS])}_"):
            meant = _suggest_of_upstreams(name, [s for s in known if s.path[0] == UPSTREAMS])
            advice = f"the profile's upstreams are {upstreams or 'none'}"
        elif name.startswith(f"{PREFIX}_"):
            meant, advice = values.suggest(name, [scalar.name for scalar in known]), ""
        else:
            continue
        if meant or advice:
            yield f"the variable {name} overrides nothing; {f'did you mean {meant}?' if meant else advice}"


def _suggest_of_upstreams(name: str, known: typing.Sequence[Scalar]) -> str | None:
    """Return the variable that *name* was meant to be.

    The names of an upstream and of a key are compared one by one: what all variables begin with makes any two
    of them alike.
    """
    upstreams = {f"{variable(scalar.path[:2])}_" for scalar in known}
    upstream = max((upstream for upstream in upstreams if name.startswith(upstream)), key=len, default="")
    if upstream:
        keys = [scalar.name.removeprefix(upstream) for scalar in known if scalar.name.startswith(upstream)]
        key = values.suggest(name.removeprefix(upstream), keys)
        return None if key is None else upstream + key
    start = f"{variable([UPSTREAMS])}_"
    names = {upstream.removeprefix(start).removesuffix("_") for upstream in upstreams}
    ends = {scalar.name.removeprefix(variable(scalar.path[:2])) for scalar in known}
    end = max((end for end in ends if name.endswith(end)), key=len, default="")
    meant = values.suggest(name.removeprefix(start).removesuffix(end), names) if end else None
    return None if meant is None else start + meant + end


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
