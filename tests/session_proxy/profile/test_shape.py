from __future__ import annotations

from typing import Literal

import pytest

from session_proxy.policy.ports import PortSet
from session_proxy.policy.rules import Match, Rule
from session_proxy.profile import shape
from session_proxy.profile.model import (
    Auth,
    AwgUpstream,
    Limits,
    Profile,
    RelayUpstream,
    SshUpstream,
    SsmPortUpstream,
    SsmUpstream,
    Upstream,
)
from session_proxy.profile.secret import Secret


def test_keys_are_what_people_write() -> None:
    assert list(shape.keys(Auth)) == ["user", "pass"]
    assert shape.keys(Auth)["pass"].type is Secret
    assert "file" not in shape.keys(Profile)


def test_kinds_are_told_apart() -> None:
    assert shape.is_table(Limits)
    assert not shape.is_table(Secret)
    assert not shape.is_table(PortSet)
    assert shape.is_list(tuple[Rule, ...])
    assert not shape.is_list(tuple[int, int])
    assert shape.is_table_of(dict[str, Upstream])
    assert shape.is_tagged_union(Upstream)
    assert not shape.is_tagged_union(Match)
    assert not shape.is_tagged_union(Limits)


def test_unions_are_looked_into() -> None:
    assert shape.union_members(Auth | None) == (Auth,)
    assert list(shape.tables_in(Upstream)) == [
        SsmUpstream,
        SsmPortUpstream,
        SshUpstream,
        AwgUpstream,
        RelayUpstream,
    ]
    assert list(shape.tables_in(Literal["a"])) == []
    assert [shape.tag_of(cls) for cls in shape.tables_in(Upstream)] == [
        "ssm",
        "ssm-port",
        "ssh",
        "awg",
        "relay",
    ]
    assert shape.tag_of(Limits) is None


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["routes", 3, "match", 0], "routes[3].match[0]"),
        (["upstreams", "eu-west_1", "ssh"], "upstreams.eu-west_1.ssh"),
        (["upstreams", "a b"], 'upstreams."a b"'),
        (["upstreams", "a.b"], 'upstreams."a.b"'),
    ],
)
def test_paths_are_written_as_people_do(path: list[str | int], text: str) -> None:
    assert shape.path_text(path) == text
