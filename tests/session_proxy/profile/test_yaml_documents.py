from __future__ import annotations

import time

import pytest

from session_proxy.profile.yaml_documents import YamlProblemError, parse_yaml


def value(text: str) -> object:
    return parse_yaml(f"x: {text}", 10)["x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("-5", -5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("text", "text"),
        ("[1, a]", [1, "a"]),
        ("{a: 1}", {"a": 1}),
        ("'1'", "1"),
        ('"true"', "true"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, expected: object) -> None:
    assert value(text) == expected
    assert type(value(text)) is type(expected)


@pytest.mark.parametrize(
    "text", ["no", "yes", "on", "off", "y", "0443", "0x10", "22:30", "1_000", "2020-01-01", "9" * 30]
)
def test_nothing_is_turned_into_something_else(text: str) -> None:
    """YAML 1.1 would make these false, true, 291, 16, 1350, 1000 and a date."""
    assert value(text) == text


def test_an_empty_document_is_an_empty_table() -> None:
    assert parse_yaml("# nothing\n", 10) == {}


def test_aliases_repeat_values() -> None:
    assert parse_yaml("a: &a [1]\nb: *a\n", 10) == {"a": [1], "b": [1]}


def test_a_billion_laughs_are_refused_at_once() -> None:
    """Ten levels of ten aliases each name 10^10 values in a kilobyte."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    started = time.monotonic()

    with pytest.raises(YamlProblemError, match="aliases repeat more than 10000 values") as info:
        parse_yaml("\n".join(lines), 32)

    assert info.value.line is not None
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!int", "!own", "!!binary", "!!timestamp"]
)
def test_tags_are_refused(tag: str) -> None:
    with pytest.raises(YamlProblemError, match="is not known"):
        value(f"{tag} '1'")
