"""How single values are read from what a file holds: strictly, nothing is turned into something else."""

from __future__ import annotations

import datetime as dt
import difflib
import math
from collections.abc import Iterable

from session_proxy.errors import InvalidTargetError
from session_proxy.policy.ports import InvalidPortsError, PortSet
from session_proxy.policy.rules import CidrMatch, InvalidRuleError, Match, Network, parse_match
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.secret_sources import InvalidValueError
from session_proxy.target import Target, canonical_host, split_host_port

# What an upstream is called: it stands in logs, metrics and names of variables.
MAX_NAME = 64

# What tokens may call a user.
MAX_USER = 128


def describe(value: object) -> str:
    """Return what *value* is, in a person's words; never the value itself, which may be a secret."""
    match value:
        case None:
            return "empty"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case dt.date() | dt.time():
            return "a date"
        case _:
            return f"a {type(value).__name__}"


def suggest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of *known* that *word* was probably meant to be."""
    by_folded = {name.casefold().replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(word.casefold().replace("-", "_"), by_folded, n=1)
    return by_folded[close[0]] if close else None


def one_of(words: Iterable[str]) -> str:
    """Return *words* as a choice: ``"a", "b" or "c"``."""
    quoted = [f'"{word}"' for word in words]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def read_bool(value: object) -> bool:
    """Return *value* where it is true or false; raises `InvalidValueError`."""
    if not isinstance(value, bool):
        raise InvalidValueError(f"is {describe(value)}", "write true or false, without quotes")
    return value


def read_int(value: object) -> int:
    """Return *value* where it is a whole number; raises `InvalidValueError`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValueError(f"is {describe(value)}", "write a whole number, without quotes")
    return value


def read_float(value: object) -> float:
    """Return *value* where it is a finite number; raises `InvalidValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValueError(f"is {describe(value)}", "write a number, without quotes")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidValueError("is not a finite number", "write a number")
    return number


def read_text(value: object) -> str:
    """Return *value* where it is text that is not empty; raises `InvalidValueError`."""
    if not isinstance(value, str):
        raise InvalidValueError(f"is {describe(value)}", "write text, in quotes")
    if not value.strip():
        raise InvalidValueError("is empty", "write a value, or remove the key")
    return value


def read_listen_address(value: object) -> ListenAddress:
    """Return the address to listen on, ``HOST:PORT`` or ``[V6]:PORT``; raises `InvalidValueError`."""
    example = 'write "HOST:PORT", such as "127.0.0.1:28881"'
    if isinstance(value, int) and not isinstance(value, bool):
        raise InvalidValueError("is a port without a host", f'write "127.0.0.1:{value}"')
    if not isinstance(value, str):
        raise InvalidValueError(f"is {describe(value)}", example)
    try:
        host, port = split_host_port(value)
        if not host or host == "*":
            raise InvalidValueError(
                f"{value!r} names no host",
                f'write "127.0.0.1:{port}", or "0.0.0.0:{port}" for every interface',
            )
        return ListenAddress(canonical_host(host), port)
    except InvalidTargetError as exc:
        raise InvalidValueError(exc.reason, exc.fix or example) from exc


def read_target(value: object, example: str = '"bastion.example.com:22"') -> Target:
    """Return the destination ``HOST:PORT``; raises `InvalidValueError`, with an *example* of this key's values."""
    text = read_text(value)
    try:
        return Target.parse(text)
    except InvalidTargetError as exc:
        raise InvalidValueError(exc.reason, exc.fix or f'write "HOST:PORT", such as {example}') from exc


def read_match(value: object) -> Match:
    """Return what a route matches; raises `InvalidValueError`."""
    try:
        return parse_match(read_text(value))
    except InvalidRuleError as exc:
        raise InvalidValueError(str(exc), exc.fix) from exc


def read_network(value: object) -> Network:
    """Return a network from a CIDR or an address; raises `InvalidValueError`."""
    match = read_match(value)
    if not isinstance(match, CidrMatch):
        raise InvalidValueError(f"{value!r} is no network", 'write a CIDR, such as "10.0.0.0/8" or "::/0"')
    return match.network


def read_ports(value: object) -> PortSet:
    """Return a set of ports from one number or range; raises `InvalidValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidValueError(f"is {describe(value)}", 'write a number, or a range such as "8000-8999"')
    try:
        return PortSet.parse([value])
    except InvalidPortsError as exc:
        raise InvalidValueError(str(exc), exc.fix) from exc


def check_name(name: str) -> None:
    """Check that an upstream may be called *name*; raises `InvalidValueError`."""
    if name in ("direct", "reject"):
        raise InvalidValueError(f"the name {name!r} is reserved", f'call it "my-{name}", for example')
    check_plain_name(name)


def check_plain_name(name: str) -> None:
    """Check that something people choose a name for may be called *name*; raises `InvalidValueError`."""
    if fault := describe_name_fault(name):
        raise InvalidValueError(*fault)


def describe_name_fault(name: str) -> tuple[str, str] | None:
    """Return why nothing can be called *name*, and what to do; None where it can."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if plain.isascii() and plain.isalnum() and len(name) <= MAX_NAME:
        return None
    return f"the name {name!r} cannot be used", f"use up to {MAX_NAME} letters, digits, '-', '_' and '.'"


def check_user_name(name: str) -> None:
    """Check that a token's user may be called *name*; raises `InvalidValueError`."""
    if not 0 < len(name) <= MAX_USER or not name.isprintable():
        raise InvalidValueError(
            f"the name {name!r} is no user's", f"write the user as tokens do: up to {MAX_USER} characters"
        )
