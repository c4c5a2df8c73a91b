"""What may stand where in a file, read off the attrs classes that it becomes."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator

import attrs

from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.tags import TagChain
from session_proxy.policy.ports import PortSet
from session_proxy.policy.rules import Match
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.secret import Secret
from session_proxy.target import Target

NoneType = type(None)

WRITTEN_AS_TEXT = frozenset(
    {ListenAddress, Target, Secret, PortSet, HeaderRange, TagChain, *typing.get_args(Match)}
)


def keys(cls: type) -> dict[str, attrs.Attribute[object]]:
    """Return the keys that a table of class *cls* may have, with the attribute each one fills."""
    attrs.resolve_types(cls)
    named = ((attribute.metadata.get("key", attribute.name), attribute) for attribute in attrs.fields(cls))
    return {key: attribute for key, attribute in named if key is not None}


def union_members(kind: object) -> tuple[object, ...]:
    """Return the members of a union but for `None`; of anything else, itself."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return tuple(member for member in typing.get_args(kind) if member is not NoneType)
    return (kind,)


def is_list(kind: object) -> bool:
    """Tell whether *kind* is ``tuple[X, ...]``, which files write as one item or a list."""
    return typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] == (Ellipsis,)


def is_table_of(kind: object) -> bool:
    """Tell whether *kind* is ``dict[str, X]``, a table whose keys people choose."""
    return typing.get_origin(kind) is dict


def is_table(kind: object) -> typing.TypeGuard[type]:
    """Tell whether *kind* is an attrs class that files write as a table with fixed keys."""
    return isinstance(kind, type) and attrs.has(kind) and kind not in WRITTEN_AS_TEXT


def tables_in(kind: object) -> Iterator[type]:
    """Yield the classes of the tables that *kind* may be: itself, or the members of a union."""
    for member in union_members(kind):
        if is_table(member):
            yield member


def tag_of(cls: type) -> str | None:
    """Return the one value that the ``kind`` of *cls* can have, where it has such a key."""
    kind = keys(cls).get("kind")
    if kind is None or typing.get_origin(kind.type) is not typing.Literal:
        return None
    return str(typing.get_args(kind.type)[0])


def is_tagged_union(kind: object) -> bool:
    """Tell whether *kind* is a union of attrs classes told apart by their ``kind``."""
    members = union_members(kind)
    return len(members) > 1 and all(is_table(member) and tag_of(member) is not None for member in members)


def path_text(path: typing.Sequence[str | int]) -> str:
    """Return *path* as people write it: ``routes[3].match``; odd keys are quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = step.replace("-", "").replace("_", "").isalnum()
            text += ("." if text else "") + (step if plain else f'"{step}"')
    return text
