from __future__ import annotations

from collections.abc import Mapping

import pytest

from session_proxy.profile.environment import as_table, override, replaced, scalars, unknown_variables
from session_proxy.profile.model import Profile

DOCUMENT: dict[str, object] = {
    "default": "direct",
    "limits": {"idle": 5},
    "upstreams": {"my-dev": {"instances": ["i-1"]}, "b": {"kind": "ssh"}, "odd": "text"},
    "routes": [{"match": "*"}],
}


def test_every_scalar_of_a_profile_has_a_variable() -> None:
    names = {scalar.name for scalar in scalars(Profile, DOCUMENT)}

    assert {
        "SPROXY_LISTEN",
        "SPROXY_DEFAULT",
        "SPROXY_ALLOW_ANONYMOUS",
        "SPROXY_AUTH_USER",
        "SPROXY_AUTH_PASS",
        "SPROXY_ADMIN_LISTEN",
        "SPROXY_LIMITS_CONNECT",
        "SPROXY_UPSTREAMS_MY_DEV_INSTANCES",
        "SPROXY_UPSTREAMS_MY_DEV_SSH_USER",
        "SPROXY_UPSTREAMS_B_ADDRESS",
        "SPROXY_UPSTREAMS_B_AWS_REGION",
    } <= names
    assert not {name for name in names if "ROUTES" in name or name in ("SPROXY_FILE", "SPROXY_NAME")}


@pytest.mark.parametrize(
    ("variable", "text", "path", "expected"),
    [
        ("SPROXY_LIMITS_IDLE", "7", ("limits", "idle"), 7),
        ("SPROXY_LIMITS_IDLE", "7.5", ("limits", "idle"), 7.5),
        ("SPROXY_LIMITS_IDLE", "soon", ("limits", "idle"), "soon"),
        ("SPROXY_LIMITS_CONNECTIONS", "7.5", ("limits", "connections"), "7.5"),
        ("SPROXY_ALLOW_ANONYMOUS", "true", ("allow_anonymous",), True),
        ("SPROXY_ALLOW_ANONYMOUS", "1", ("allow_anonymous",), "1"),
        ("SPROXY_AUTH_PASS", "1", ("auth", "pass"), "1"),
        ("SPROXY_LISTEN", "a:1, b:2", ("listen",), ["a:1", "b:2"]),
        ("SPROXY_UPSTREAMS_B_SSH_PORT", "23", ("upstreams", "b", "ssh", "port"), 23),
    ],
)
def test_text_becomes_what_the_key_holds(
    variable: str, text: str, path: tuple[str, ...], expected: object
) -> None:
    merged, labels = override(DOCUMENT, Profile, {variable: text})

    table: Mapping[str, object] = merged
    for step in path[:-1]:
        table = as_table(table[step])
    assert table[path[-1]] == expected
    assert labels[".".join(path)] == variable


def test_problems_are_named_by_variables_where_there_is_no_table_to_write_them_into() -> None:
    document: dict[str, object] = {"limits": {}}
    _, labels = override(document, Profile, {"SPROXY_AUTH_USER": "u", "SPROXY_LIMITS_IDLE": "5"})

    assert labels == {
        "auth.user": "SPROXY_AUTH_USER",
        "auth.pass": "SPROXY_AUTH_PASS",
        "limits.idle": "SPROXY_LIMITS_IDLE",
    }


def test_the_document_itself_is_left_alone() -> None:
    before = repr(DOCUMENT)
    merged, _ = override(DOCUMENT, Profile, {"SPROXY_LIMITS_IDLE": "9"})

    assert (repr(DOCUMENT), merged["upstreams"]) == (before, DOCUMENT["upstreams"])


def test_a_value_can_be_put_where_there_was_no_table() -> None:
    assert replaced({"a": 1}, ["b", "c"], 2) == {"a": 1, "b": {"c": 2}}
    assert replaced({"a": 1}, ["a", "c"], 2) == {"a": {"c": 2}}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("SPROXY_UPSTREAMS_MY_DEV_SHH_USER", "did you mean SPROXY_UPSTREAMS_MY_DEV_SSH_USER?"),
        ("SPROXY_UPSTREAMS_MYDEV_SSH_USER", "did you mean SPROXY_UPSTREAMS_MY_DEV_SSH_USER?"),
        ("SPROXY_UPSTREAMS_STAGE_SSH_USER", "the profile's upstreams are my-dev, b, odd"),
        ("SPROXY_UPSTREAMS_B_COLOUR", "the profile's upstreams are my-dev, b, odd"),
        ("SPROXY_UPSTREAMS_X", "the profile's upstreams are my-dev, b, odd"),
    ],
)
def test_a_variable_for_an_upstream_is_compared_with_its_keys(name: str, advice: str) -> None:
    assert list(unknown_variables(DOCUMENT, Profile, {name: "x"})) == [
        f"the variable {name} overrides nothing; {advice}"
    ]


def test_without_upstreams_no_variable_is_for_one() -> None:
    name = "SPROXY_UPSTREAMS_DEV_SSH_USER"
    assert list(unknown_variables({}, Profile, {name: "x"})) == [
        f"the variable {name} overrides nothing; the profile's upstreams are none"
    ]


def test_only_what_looks_mistyped_is_unknown() -> None:
    environ = dict.fromkeys(["SPROXY_DEFALT", "SPROXY_HOME_PAGE_OF_MINE", "SPROXY_PASSWD", "HOME"], "x")

    assert list(unknown_variables({"auth": {"pass": "env:SPROXY_PASSWD"}}, Profile, environ)) == [
        "the variable SPROXY_DEFALT overrides nothing; did you mean SPROXY_DEFAULT?"
    ]
