"""From the plain data of a file to attrs values, with every fault on the way.

cattrs finds the hook for a type; the hooks here are strict (nothing is coerced) and do not stop at the first
fault: each notes what is wrong under the key's path and goes on with a default, an empty list or without the
item, so that one run finds everything. What comes out is therefore only good if no problem was noted.
"""

from __future__ import annotations

import contextlib
import re
import typing
from collections.abc import Callable, Collection, Generator, Mapping
from pathlib import Path
from typing import TypeVar

import attrs
import cattrs

from awg_obfs.errors import ParametersError
from awg_obfs.protocol.parameters import Parameters, parameters_from_mapping
from session_proxy.errors import Problem
from session_proxy.policy.ports import PortSet
from session_proxy.policy.rules import Match, Network
from session_proxy.profile import shape, values
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_model import RelayUser, TierConfig
from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import InvalidValueError, SecretSources, expand_path
from session_proxy.target import Target

T = TypeVar("T")

# What the keys of a table that people choose have to be like, by what stands there; upstreams have names of their own.
NAME_CHECKS: dict[object, Callable[[str], None]] = {
    Target: values.check_plain_name,
    TierConfig: values.check_plain_name,
    RelayUser: values.check_user_name,
}


class BrokenValueError(Exception):
    """A value could not be built; why has been noted already."""


@attrs.define(eq=False)
class Structurer:
    """Turns plain data into attrs values. Use one per file.

    *labels* rename paths whose value comes from elsewhere, such as an environment variable. *names* are the
    keys of the tables that other keys refer to, with the reserved words. *given* are the paths of all keys that
    were there, so that what somebody wrote can be told from a default.
    """

    sources: SecretSources
    names: Mapping[str, Collection[str]]
    labels: Mapping[str, str] = attrs.field(factory=dict[str, str])
    problems: list[Problem] = attrs.field(factory=list[Problem], init=False)
    given: set[str] = attrs.field(factory=set[str], init=False)
    _broken: set[str] = attrs.field(factory=set[str], init=False)
    literals: list[str] = attrs.field(factory=list[str], init=False)
    files: list[tuple[str, Path]] = attrs.field(factory=list[tuple[str, Path]], init=False)
    _positions: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]], init=False)
    _path: list[str | int] = attrs.field(factory=list[str | int], init=False)
    _converter: cattrs.Converter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._converter = cattrs.Converter(detailed_validation=False)
        hooks: dict[type, Callable[[object], object]] = {
            bool: values.read_bool,
            int: values.read_int,
            float: values.read_float,
            str: values.read_text,
            ListenAddress: values.read_listen_address,
            Target: values.read_target,
            Secret: self._secret,
            Path: self._file_path,
            PortSet: self._ports,
            Parameters: self._parameters,
        }
        # The last hook registered is asked first, so what is general comes before what is special.
        add = self._converter.register_structure_hook_func
        add(
            lambda kind: len(shape.union_members(kind)) == 1 and shape.union_members(kind)[0] is not kind,
            self._optional,
        )
        add(shape.is_table, self._table)
        add(shape.is_list, self._list)
        add(shape.is_table_of, self._named_tables)
        add(lambda kind: typing.get_origin(kind) is typing.Literal, self._choice)
        add(shape.is_tagged_union, self._tagged)
        add(lambda kind: kind == Match, lambda value, _: values.read_match(value))
        add(lambda kind: kind == Network, lambda value, _: values.read_network(value))
        for kind, read in hooks.items():
            self._register(kind, read)

    def _register(self, kind: type, read: Callable[[object], object]) -> None:
        self._converter.register_structure_hook(kind, lambda value, _: read(value))

    def _read(self, value: object, kind: object) -> object:
        """Return *value* as a *kind*, which may be any annotation."""
        return self._converter.structure(value, typing.cast("type[object]", kind))

    def structure(self, data: Mapping[str, object], cls: type[T]) -> T | None:
        """Return *data* as a *cls*, or what could be made of it; `None` where that is nothing."""
        with self._noting():
            return self._converter.structure(data, cls)
        return None

    def note(self, path: str, message: str, fix: str) -> None:
        """Note a problem with the value at *path*."""
        self._break(path)
        label = self.labels.get(path) or self.labels.get(path.rpartition("[")[0]) or path
        self.problems.append(Problem(label, message, fix))

    def note_missing(self, path: str, example: object = None, *, beside: str = "") -> None:
        """Note that there is nothing at *path*, such as *example*, though something stands *beside* it."""
        folder, _, key = path.rpartition(".")
        other = f"{folder}.{beside}" if folder else beside
        message = f"is missing beside {self.labels.get(other, beside)}" if beside else "is missing"
        wanted = f"write {key} = {example}" if example else f"write {key}"
        # Where the values beside it come from variables or options, so can this one.
        self.note(path, message, "set it" if path in self.labels else wanted)

    def sound(self, path: str) -> bool:
        """Tell whether no problem was noted at *path* or below it."""
        return path not in self._broken

    def _break(self, path: str) -> None:
        # What holds the value is broken too; a key in quotes may add names that nobody asks for.
        self._broken |= {path, *(path[: found.start()] for found in re.finditer(r"[.\[]", path))}

    def index(self, path: str, position: int) -> int:
        """Return where in the file's list at *path* the item stands that is now at *position*."""
        return self._positions.get(path, range(position + 1))[position]

    def item(self, path: str, position: int) -> str:
        """Return the path of the item at *position* of the value at *path*, which may be an item alone."""
        return f"{path}[{self.index(path, position)}]" if path in self._positions else path

    @property
    def here(self) -> str:
        """The path of the value that is being read."""
        return shape.path_text(self._path)

    @contextlib.contextmanager
    def _at(self, step: str | int) -> Generator[None]:
        self._path.append(step)
        try:
            yield
        finally:
            self._path.pop()

    @contextlib.contextmanager
    def _noting(self) -> Generator[None]:
        """Note what the block finds wrong, and go on after it."""
        try:
            yield
        except InvalidValueError as exc:
            self.note(self.here, str(exc), exc.fix)
        except BrokenValueError:
            self._break(self.here)

    def _table(self, value: object, cls: type[T]) -> T:
        if not isinstance(value, Mapping):
            inside = ", ".join(shape.keys(cls))
            raise InvalidValueError(f"is {values.describe(value)}", f"write a table with the keys {inside}")
        table = typing.cast("Mapping[str, object]", value)
        known = shape.keys(cls)
        for key in table:
            if key not in known:
                with self._at(key):
                    self.note(self.here, *_unknown_key(key, cls))
        arguments: dict[str, object] = {}
        complete = True
        for key, attribute in known.items():
            with self._at(key):
                read = self._field(table, key, attribute)
                if read:
                    arguments[attribute.alias or attribute.name] = read[0]
                elif "hole" in attribute.metadata:
                    arguments[attribute.alias or attribute.name] = attribute.metadata["hole"]
                elif attribute.default is attrs.NOTHING:
                    complete = False
        if not complete:
            raise BrokenValueError
        build: Callable[..., T] = cls
        return build(**arguments)

    def _field(
        self, table: Mapping[str, object], key: str, attribute: attrs.Attribute[object]
    ) -> list[object]:
        """Return the value of one key in a list, or an empty list where the default has to do."""
        default = attribute.default
        if key not in table:
            if shape.is_table(type(default)):
                # Its own defaults may be paths that have to be expanded.
                return [self._read({}, type(default))]
            if isinstance(default, Path):
                return [self._file_path(str(default))]
            if default is attrs.NOTHING:
                self.note_missing(self.here, attribute.metadata.get("example"))
                return [()] if shape.is_list(attribute.type) else []
            return []
        self.given.add(self.here)
        if table[key] == [] and attribute.metadata.get("empty"):
            return [()]
        with self._noting():
            if attribute.type is Target and "example" in attribute.metadata:
                return [values.read_target(table[key], attribute.metadata["example"])]
            return [self._checked(self._read(table[key], attribute.type), attribute)]
        return [()] if shape.is_list(attribute.type) and default is attrs.NOTHING else []

    def _checked(self, value: object, attribute: attrs.Attribute[object]) -> object:
        """Return *value* after what the field's metadata ask for."""
        meta = attribute.metadata
        if (
            isinstance(value, int | float)
            and "minimum" in meta
            and not meta["minimum"] <= value <= meta["maximum"]
        ):
            raise InvalidValueError(
                f"{value:g} is out of range", f"write a number from {meta['minimum']} to {meta['maximum']}"
            )
        if meta.get("path") and isinstance(value, str) and value not in meta.get("keywords", ()):
            return str(self._file_path(value))
        if "refers" in meta:
            self._refer(value, meta["refers"])
        if meta.get("public") and self.here in self.literals:
            self.literals.remove(self.here)
        return value

    def _refer(self, value: object, table: str) -> None:
        names = typing.cast("tuple[str, ...]", value) if isinstance(value, tuple) else (str(value),)
        known = self.names.get(table, ())
        for position, name in enumerate(names):
            if name not in known:
                meant = values.suggest(name, known)
                fix = f'did you mean "{meant}"?' if meant else f"write one of {', '.join(sorted(known))}"
                self.note(self.item(self.here, position), f"no upstream is called {name!r}", fix)

    def _optional(self, value: object, kind: object) -> object:
        return self._read(value, shape.union_members(kind)[0])

    def _list(self, value: object, kind: object) -> tuple[object, ...]:
        (item_kind, _) = typing.get_args(kind)
        lenient = shape.is_table(item_kind)
        items: list[object] = []
        if not isinstance(value, list):
            return (self._read(value, item_kind),)
        kept: list[int] = []
        written = typing.cast("list[object]", value)
        for position, item in enumerate(written):
            with self._at(position), self._noting():
                items.append(self._read(item, item_kind))
                kept.append(position)
        self._positions[self.here] = kept
        if not lenient and len(kept) < len(written):
            raise BrokenValueError
        if not items and not lenient:
            raise InvalidValueError("is an empty list", "write at least one item, or remove the key")
        return tuple(items)

    def _named_tables(self, value: object, kind: object) -> dict[str, object]:
        if not isinstance(value, Mapping):
            raise InvalidValueError(f"is {values.describe(value)}", _how_to_write(self.here, kind))
        _, item_kind = typing.get_args(kind)
        check = NAME_CHECKS.get(item_kind, values.check_name)
        tables: dict[str, object] = {}
        for name, item in typing.cast("Mapping[str, object]", value).items():
            with self._at(name):
                with self._noting():
                    check(name)
                with self._noting():
                    tables[name] = self._read(item, item_kind)
        return tables

    def _choice(self, value: object, kind: object) -> str:
        words = [str(word) for word in typing.get_args(kind)]
        if value in words:
            return str(value)
        if not isinstance(value, str):
            raise InvalidValueError(f"is {values.describe(value)}", f"write {values.one_of(words)}")
        meant = values.suggest(value, words)
        hint = f' (did you mean "{meant}"?)' if meant else ""
        raise InvalidValueError(f"{value!r} is no choice here", f"write {values.one_of(words)}{hint}")

    def _tagged(self, value: object, kind: object) -> object:
        by_tag = {shape.tag_of(cls): cls for cls in shape.tables_in(kind)}
        tags = [str(tag) for tag in by_tag]
        if not isinstance(value, Mapping):
            raise InvalidValueError(
                f"is {values.describe(value)}", f"write a table with kind = {values.one_of(tags)}"
            )
        table = typing.cast("Mapping[str, object]", value)
        tag = table.get("kind")
        if tag is None and "instances" in table:
            tag = "ssm"
        with self._at("kind"):
            if tag is None:
                self.note(self.here, "is missing", f"write kind = {values.one_of(tags)}")
            elif tag not in tags:
                with self._noting():
                    self._choice(tag, typing.Literal[tuple(tags)])
        if not isinstance(tag, str) or tag not in by_tag:
            raise BrokenValueError
        return self._read(table, by_tag[tag])

    def _secret(self, value: object) -> Secret:
        if not isinstance(value, str):
            raise InvalidValueError(f"is {values.describe(value)}", "write text, in quotes")
        secret = self.sources.read(value)
        if secret.source == "literal":
            self.literals.append(self.here)
        return secret

    def _file_path(self, value: object) -> Path:
        # As secrets are written: no file's name begins like that.
        text = values.read_text(value).removeprefix("file:")
        if text.startswith(("env:", "command:")):
            raise InvalidValueError("has to be a file", 'write its path, such as "file:PATH"')
        path = expand_path(text, self.sources.base, self.sources.environ)
        self.files.append((self.here, path))
        return path

    def _parameters(self, value: object) -> Parameters:
        if not isinstance(value, Mapping):
            raise InvalidValueError(
                f"is {values.describe(value)}",
                f"write a table with the keys {', '.join(shape.keys(Parameters))}",
            )
        table = typing.cast("Mapping[str, object]", value)
        try:
            return parameters_from_mapping(table)
        except ParametersError as exc:
            for problem in exc.problems:
                with self._at(problem.key):
                    self.note(self.here, problem.message, problem.fix)
            faulty = {problem.key for problem in exc.problems}
            if not faulty <= shape.keys(Parameters).keys():
                # It may be one of the others with a slip, and then that one is not missing.
                raise BrokenValueError from exc
            return parameters_from_mapping({key: item for key, item in table.items() if key not in faulty})

    def _ports(self, value: object) -> PortSet:
        if not isinstance(value, list):
            return values.read_ports(value)
        items = self._list(typing.cast("list[object]", value), tuple[PortSet, ...])
        return PortSet.union(item for item in items if isinstance(item, PortSet))


def _how_to_write(path: str, kind: object) -> str:
    (_, item_kind) = typing.get_args(kind)
    if next(shape.tables_in(item_kind), None) is None:
        return f'write [{path}] with lines such as NAME = "127.0.0.1:22"'
    return f"write [{path}.NAME] tables"


def _unknown_key(key: str, cls: type) -> tuple[str, str]:
    known = shape.keys(cls)
    meant = values.suggest(key, known)
    if meant is not None:
        return "is not a key", f'did you mean "{meant}"?'
    for name, attribute in known.items():
        for inner in shape.tables_in(attribute.type):
            if key in shape.keys(inner):
                return "is not a key here", f"write it under {name}"
    return "is not a key", f"the keys here are {', '.join(known)}"
