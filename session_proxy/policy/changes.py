"""What differs between the profile that runs and the one that is to run, key by key.

An upstream whose own keys changed is another one from now on. When it is started is no matter once it runs, and neither
is where a profile lies or what it is called. Nothing here shows a value: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar, cast

import attrs

T = TypeVar("T")

# Keys of an upstream that say something of the start only.
START_KEYS = frozenset({"startup"})


class ProfileLike(Protocol):
    """What a profile has that is looked at apart; all its other fields are compared as they are."""

    @property
    def listen(self) -> Sequence[object]:
        """The addresses to listen on."""
        ...

    @property
    def upstreams(self) -> Mapping[str, object]:
        """The ways out, by name."""
        ...


# Fields that are no keys of the file, and those that are looked at apart.
APART = frozenset({"file", "name", "listen", "upstreams"})


@attrs.frozen
class Changes:
    """The keys that are not what they were.

    Attributes:
      listen: Whether the addresses differ.
      added: Upstreams that there were not.
      removed: Upstreams that there are no more.
      changed: Upstreams that are others now, and their keys that differ.
      settings: Other keys that differ, with dots.

    """

    listen: bool = False
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]])
    settings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything differs."""
        return bool(self.listen or self.added or self.removed or self.changed or self.settings)

    @property
    def leaving(self) -> frozenset[str]:
        """The upstreams that run, and must not as they do."""
        return frozenset(self.removed) | frozenset(self.changed)

    @property
    def coming(self) -> tuple[str, ...]:
        """The upstreams that do not run as they are to."""
        return (*self.added, *self.changed)

    def lines(self) -> list[str]:
        """Return what differs, a line for each, for a person."""
        keys = [*(["listen"] if self.listen else []), *self.settings]
        return [
            *([f"changed: {', '.join(keys)}"] if keys else []),
            *(f"upstream {name}: new" for name in self.added),
            *(f"upstream {name}: changed ({', '.join(names)})" for name, names in self.changed.items()),
            *(f"upstream {name}: removed" for name in self.removed),
        ]


def compare(old: ProfileLike, new: ProfileLike) -> Changes:
    """Return what *new* has otherwise than *old*; both are of the same attrs class."""
    before, after = old.upstreams, new.upstreams
    both = {name: tuple(changed_keys(before[name], after[name])) for name in after if name in before}
    changed = {name: keys for name, keys in both.items() if not START_KEYS.issuperset(keys)}
    started = [
        f"upstreams.{name}.{key}" for name, keys in both.items() if name not in changed for key in keys
    ]
    settings = [key for key in changed_keys(old, new) if key.partition(".")[0] not in APART]
    return Changes(
        listen=list(old.listen) != list(new.listen),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=changed,
        settings=(*settings, *started),
    )


def changed_keys(old: object, new: object) -> Iterator[str]:
    """Yield the keys, with dots, whose values differ; ``kind`` where the two cannot be compared."""
    if type(old) is not type(new):
        yield "kind"
        return
    for field in attrs.fields(cast("type[attrs.AttrsInstance]", type(old))):
        key: str = field.metadata.get("key") or field.name
        one: object = getattr(old, field.name)
        other: object = getattr(new, field.name)
        if one == other or (field.metadata.get("renewed") and _is_from_same_source(one, other)):
            continue
        if type(one) is type(other) and _is_table(type(one)):
            yield from (f"{key}.{below}" for below in changed_keys(one, other))
        else:
            yield key


def _is_from_same_source(one: object, other: object) -> bool:
    """Return whether two secrets that are renewed while they are used stand for one."""
    origins = [(getattr(each, "source", ""), getattr(each, "reference", "")) for each in (one, other)]
    return bool(origins[0][1]) and origins[0] == origins[1]


def _is_table(cls: type) -> bool:
    """Return whether *cls* is made of keys, and is not one value, such as a secret or an address."""
    return attrs.has(cls) and all(field.kw_only for field in attrs.fields(cls))


def replaced(old: Sequence[T], new: Sequence[T]) -> tuple[list[T], list[T]]:
    """Return what *new* has beyond *old*, and what it lacks; what is in them several times counts as often."""
    left = list(old)
    added: list[T] = []
    for item in new:
        if item in left:
            left.remove(item)
        else:
            added.append(item)
    return added, left
