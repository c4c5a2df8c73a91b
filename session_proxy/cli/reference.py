"""The reference of the command line, made from the functions that are its commands: ``docs/reference/cli.md``."""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator

import attrs
import typer
from typer.main import get_command_name
from typer.models import ArgumentInfo, OptionInfo


@attrs.frozen
class Parameter:
    """An argument or option as a person writes it, what may follow, and what it does."""

    spelling: str
    is_option: bool
    help: str


def cli_reference(app: typer.Typer) -> Iterator[str]:
    """Return the lines of ``docs/reference/cli.md``."""
    yield "# Command line"
    yield ""
    yield "What `sproxy --help` shows, command by command. This page is made from the program itself."
    yield "Exit codes and signals: [operating it](../operations.md)."
    yield from _commands(app, "")


def _commands(app: typer.Typer, prefix: str) -> Iterator[str]:
    for info in app.registered_commands:
        if info.callback is not None:
            yield ""
            yield from _command(
                prefix + (info.name or get_command_name(info.callback.__name__)), info.callback
            )
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _commands(group.typer_instance, f"{prefix}{group.name} ")


def _command(name: str, callback: Callable[..., object]) -> Iterator[str]:
    parameters = list(describe(callback))
    arguments = [parameter.spelling for parameter in parameters if not parameter.is_option]
    yield f"## sproxy {name}"
    yield ""
    yield "```text"
    yield " ".join(["sproxy", name, "[OPTION]…", *arguments])
    yield "```"
    yield ""
    yield inspect.cleandoc(callback.__doc__ or "")
    if parameters:
        yield ""
        yield "| | |"
        yield "|---|---|"
        for parameter in parameters:
            yield f"| `{parameter.spelling}` | {parameter.help} |"


def describe(callback: Callable[..., object]) -> Iterator[Parameter]:
    """Return the parameters of a command's function, in their order."""
    hints = typing.get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, *extras = typing.get_args(hints[name])
        info = next(extra for extra in extras if isinstance(extra, OptionInfo | ArgumentInfo))
        # A bar within a row of a table is escaped.
        metavar = (info.metavar or _value_of(kind)).replace("|", "\\|")
        if isinstance(info, OptionInfo):
            # Within Annotated, Typer takes the first spelling for a default.
            spellings = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str)]
            spelling = spellings[0] if spellings else f"--{name.replace('_', '-')}"
            yield Parameter(f"{spelling} {metavar}".strip(), True, _sentence(info, parameter.default))
        else:
            bare = metavar or name.upper()
            required = parameter.default is inspect.Parameter.empty
            yield Parameter(bare if required else f"[{bare}]", False, _sentence(info, None))


def _value_of(kind: object) -> str:
    """Return what stands for a value of that type: nothing for a flag, the words where they are few."""
    for each in typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,):
        if each is bool:
            return ""
        if isinstance(each, type) and issubclass(each, enum.Enum):
            return "|".join(str(member.value) for member in each)
        if each is int:
            return "N"
    return ""


def _sentence(info: OptionInfo | ArgumentInfo, default: object) -> str:
    text = re.sub(r"\s+", " ", info.help or "")
    if isinstance(default, enum.Enum):
        text += f" Default: `{default.value}`"
        text += f", or the variable `{info.envvar}`." if info.envvar else "."
    return text
