"""The references of what people write, made from the classes that read it; they are kept in ``docs/reference/``."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import attrs

from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.tags import TagChain
from session_proxy.policy.ports import PortSet
from session_proxy.policy.rules import Match, Network, Rule
from session_proxy.profile import shape
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.environment import scalars
from session_proxy.profile.model import (
    AwgUpstream,
    ListenAddress,
    Profile,
    RelayEndpoint,
    SsmUpstream,
    Upstream,
)
from session_proxy.profile.relay_model import RelayAgent, RelayAgentLimits, RelayServer
from session_proxy.profile.relay_presets import PRESETS, as_document
from session_proxy.profile.secret import Secret
from session_proxy.target import Target

INTRODUCTION = """\
# Profile

What `sproxy run` reads: TOML, or YAML with the same keys. This page is made from the program
itself.

It is found at the path that is given, else at `./config.toml` or `./config.yaml`, else at
`$XDG_CONFIG_HOME/session-proxy/config.toml` or `.yaml` (`~/.config` where that is not set). `sproxy
check` reports every problem in it at once: the key, what is wrong, and what to write instead. A key
that is not known is a problem.

* **Durations** are numbers of seconds.
* **Addresses** are `"HOST:PORT"` or `"[V6]:PORT"`. To listen on, port 0 is any free one.
* **Paths** are relative to the profile's folder; `~` is the home folder.
* **Secrets** are `"env:NAME"` (a variable), `"file:PATH"`, `"command:LINE"` (the first line that
  `/bin/sh` prints for it, within 60 seconds) or the secret itself. One that is written out in a
  file that others can read draws a warning.
* Where a **list** is taken, one item alone is too.
* Nothing is turned into something else: `"5"` is not a number, and `1` is not `true`.
"""

ROUTING = """\
The first route that matches a destination, in file order, decides, whatever the kinds of the
matches.

| match | takes |
|---|---|
| `"10.0.0.0/8"`, `"2001:db8::/32"` | the addresses in a network; host bits have to be zero |
| `"10.0.0.1"`, `"2001:db8::1"` | one address |
| `"db.internal"` | one name |
| `"*.internal"` | every name below `internal`, at any depth, but not `internal` itself |
| `"*"` | everything |

Names compare without regard to case and to a final dot, and after IDNA. A network takes a
destination that is given by name only where the route says `resolve = "local"`, and even then the
name is what is sent. An IPv4 address within an IPv6 one (`::ffff:10.0.0.1`) counts as IPv4. A route
that can never decide, because one earlier route takes everything that it does, is a problem.

A list of upstreams is tried in order within one connect: the next one where an upstream is down,
too slow, or cannot resolve or reach the destination. An answer that another upstream would not
change (refused, not allowed) is final.

`sproxy explain PROFILE HOST:PORT` shows which route decides, and why the others do not.
"""

AWG_INTRODUCTION = """\
# Server and client of kind "awg"

What `sproxy awg-server` and `sproxy awg-client` read: TOML, or YAML with the same keys. This page is
made from the program itself. `sproxy awg-keygen` writes a pair of such files that fit each other.

Durations, addresses, paths, secrets and lists are written as in a [profile](profile.md), and every
problem is reported at once: the key, what is wrong, and what to write instead.
"""

AWG_FILES: tuple[tuple[str, type], ...] = (("`server.toml`", AwgServer), ("`client.toml`", AwgClient))

RELAY_INTRODUCTION = """\
# Server and agent of kind "relay"

What `sproxy relay-server` and `sproxy relay-agent` read: TOML, or YAML with the same keys. This page is
made from the program itself.

Durations, addresses, paths, secrets and lists are written as in a [profile](profile.md); where a path is
taken, `"file:PATH"` is too. Every problem is reported at once: the key, what is wrong, and what to write
instead.
"""

PRESET_INTRODUCTION = """\
### `profile`

Defaults of `limits`, `pool` and `tiers` that belong together. What the file says of a key overrides them.
A tier of another name has the defaults of `free` in production.
"""

RELAY_END = """\
The tables `[admin]` and `ssh` are those of a [profile](profile.md).
"""

VARIABLES = """\
## Variables

A variable overrides a value of the profile, and an option of the command line overrides a variable.
Its name is the key's path in capitals after `SPROXY_`; what is not a letter or a digit becomes `_`.
Lists are split at commas. Routes have no variables.
"""


def profile_reference() -> str:
    """Return the page, as Markdown."""
    return "\n".join(_page())


def _page() -> Iterator[str]:
    yield INTRODUCTION
    yield "## Top level"
    yield ""
    yield from _keys(Profile)
    tables = {key: attribute.type for key, attribute in shape.keys(Profile).items()}
    for key, kind in tables.items():
        for cls in shape.tables_in(kind):
            yield from _section(f"`[{key}]`", cls)
    yield "## `[upstreams.NAME]`"
    yield ""
    yield "A name has letters, digits, `-`, `_` and `.`; `direct` and `reject` are reserved."
    yield ""
    for cls in shape.tables_in(Upstream):
        yield from _section(f'`kind = "{shape.tag_of(cls)}"`', cls, level=3)
    yield from _section("`upstreams.NAME.endpoints`", RelayEndpoint, level=3)
    for kind in (SsmUpstream, AwgUpstream):
        for key, attribute in shape.keys(kind).items():
            for cls in shape.tables_in(attribute.type):
                yield from _section(f"`[upstreams.NAME.{key}]`", cls, level=3)
    yield from _section("`[[routes]]`", Rule)
    yield ROUTING
    yield VARIABLES
    document: dict[str, object] = {"upstreams": {"NAME": {}}}
    yield from sorted({f"* `{scalar.name}`" for scalar in scalars(Profile, document)})
    yield ""


def awg_reference() -> str:
    """Return ``docs/reference/awg.md``, as Markdown."""
    return "\n".join(_awg_page())


def _awg_page() -> Iterator[str]:
    yield AWG_INTRODUCTION
    for title, cls in AWG_FILES:
        yield from _section(title, cls)
        for key, attribute in shape.keys(cls).items():
            if shape.is_list(attribute.type):
                for item in shape.tables_in(typing.get_args(attribute.type)[0]):
                    yield from _section(f"`[[{key}]]`", item, level=3)
            # What both have, profiles have too.
            elif key in ("policy", "limits") and cls is AwgServer:
                for table in shape.tables_in(attribute.type):
                    yield from _section(f"`[{key}]`", table, level=3)
    yield "The tables `[awg]`, `[auth]`, `[admin]` and a client's `[limits]` are those of a [profile](profile.md)."
    yield ""


def relay_reference() -> str:
    """Return ``docs/reference/relay.md``, as Markdown."""
    return "\n".join(_relay_page())


def _relay_page() -> Iterator[str]:
    yield RELAY_INTRODUCTION
    yield from _section("`relay.toml`", RelayServer)
    for key, attribute in shape.keys(RelayServer).items():
        if key == "profile":
            yield PRESET_INTRODUCTION
            yield from _presets()
        elif shape.is_table_of(attribute.type):
            (_, item) = typing.get_args(attribute.type)
            yield from _section(f"`[{key}.NAME]`", item, level=3)
        elif key != "admin":
            for table in shape.tables_in(attribute.type):
                yield from _section(f"`[{key}]`", table, level=3)
    yield from _section("`agent.toml`", RelayAgent)
    yield from _section("`endpoints`", RelayEndpoint, level=3)
    yield from _section("`[limits]`", RelayAgentLimits, level=3)
    yield RELAY_END


def _presets() -> Iterator[str]:
    """Yield a table of what the presets differ in."""
    rows: dict[str, list[object]] = {}
    for preset in PRESETS.values():
        for table, values in as_document(preset).items():
            for path, value in _leaves([table], typing.cast("dict[str, object]", values)):
                rows.setdefault(path, []).append(value)
    yield f"| key | {' | '.join(PRESETS)} |"
    yield f"|---|{'---|' * len(PRESETS)}"
    for path, values in rows.items():
        if len(set(map(str, values))) > 1 or path.startswith("tiers."):
            yield f"| `{path}` | {' | '.join(f'`{_literal(value)}`' for value in values)} |"
    yield ""


def _leaves(path: list[str], table: typing.Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves([*path, key], typing.cast("dict[str, object]", value))
        else:
            yield ".".join([*path, key]), value


def _literal(value: object) -> str:
    """Return *value* as a file writes it."""
    return f"{value:.12g}" if isinstance(value, float) else json.dumps(value)


def _section(title: str, cls: type, level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {title}"
    yield ""
    yield inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].replace("``", "`").replace("\n", " ")
    yield ""
    yield from _keys(cls)


def _keys(cls: type) -> Iterator[str]:
    described = descriptions(cls)
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for key, attribute in shape.keys(cls).items():
        cells = (f"`{key}`", _kind(attribute), _default(attribute), described[attribute.name])
        yield f"| {' | '.join(cells)} |"
    yield ""


def descriptions(cls: type) -> dict[str, str]:
    """Return what the "Attributes" of a class's docstring say about each."""
    section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^  (\w+): (.*(?:\n   +.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _kind(attribute: attrs.Attribute[object]) -> str:
    (kind,) = shape.union_members(attribute.type) if _optional(attribute.type) else (attribute.type,)
    meta = attribute.metadata
    if shape.is_list(kind):
        (item, _) = typing.get_args(kind)
        return "tables" if shape.is_table(item) else f"{_named(item)}, or a list"
    if kind is PortSet:
        return f"{_named(kind)}, or a list"
    if meta.get("path"):
        return " or ".join(["path", *(f'`"{word}"`' for word in meta.get("keywords", ()))])
    if meta.get("minimum") is not None:
        whole = "whole number" if kind is int else "number"
        return f"{whole}, {meta['minimum']} to {meta['maximum']}"
    return _named(kind)


def _optional(kind: object) -> bool:
    return len(shape.union_members(kind)) == 1


NAMES: dict[object, str] = {
    bool: "`true` or `false`",
    int: "whole number",
    str: "text",
    Path: "path",
    Secret: "secret",
    ListenAddress: "address",
    Target: "address",
    PortSet: "port or range",
    Match: "match",
    Network: "network",
    HeaderRange: "number or range",
    TagChain: "tags",
}


def _named(kind: object) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(f'`"{word}"`' for word in typing.get_args(kind))
    if shape.is_table(kind):
        return "table"
    if shape.is_table_of(kind):
        (_, item) = typing.get_args(kind)
        return f"{NAMES[item]}es by name" if item in NAMES else "tables"
    return NAMES[kind]


def _default(attribute: attrs.Attribute[object]) -> str:
    default = attribute.default
    # The loader goes by the kind, so it knows no default for it; only "ssm" may be left out.
    if default is attrs.NOTHING or (attribute.name == "kind" and default != "ssm"):
        return "needed"
    if default is None or default == () or shape.is_table(type(default)) or not _plain(default):
        return ""
    if isinstance(default, tuple):
        return ", ".join(f'`"{item}"`' for item in typing.cast("tuple[object, ...]", default))
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:.12g}`" if isinstance(default, int | float) else f'`"{default}"`'


def _plain(default: object) -> bool:
    return isinstance(default, bool | int | float | str | Path | tuple | ListenAddress | HeaderRange)
