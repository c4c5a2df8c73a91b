from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from session_proxy.policy.rules import Rule
from session_proxy.profile import shape
from session_proxy.profile.awg_model import AwgClient, AwgPeer, AwgServer
from session_proxy.profile.model import Aws, Profile, RelayEndpoint, Upstream
from session_proxy.profile.reference import (
    awg_reference,
    descriptions,
    profile_reference,
    relay_reference,
)
from session_proxy.profile.relay_model import RelayAgent, RelayServer, RelayUser, TierConfig

PAGES = Path(__file__).parents[3] / "docs" / "reference"

WRITE_IT = """\
python -c 'from session_proxy.profile.reference import {0}_reference as page; print(page(), end=str())' \
    > docs/reference/{0}.md"""


@pytest.mark.parametrize(
    ("name", "page"), [("profile", profile_reference), ("awg", awg_reference), ("relay", relay_reference)]
)
def test_the_page_is_what_the_program_reads(name: str, page: Callable[[], str]) -> None:
    assert (PAGES / f"{name}.md").read_text(encoding="utf-8") == page(), WRITE_IT.format(name)


def tables_below(cls: type) -> set[type]:
    inner = {table for attribute in shape.keys(cls).values() for table in shape.tables_in(attribute.type)}
    return {cls}.union(*map(tables_below, inner))


@pytest.mark.parametrize(
    "cls",
    [
        Profile,
        AwgServer,
        AwgClient,
        AwgPeer,
        Rule,
        RelayServer,
        RelayAgent,
        RelayEndpoint,
        TierConfig,
        RelayUser,
        *shape.tables_in(Upstream),
        *tables_below(Aws),
    ],
)
def test_every_key_is_described_and_nothing_else(cls: type) -> None:
    for table in tables_below(cls):
        fields = {attribute.name for attribute in shape.keys(table).values()}
        assert set(descriptions(table)) == fields, table


def test_descriptions_may_run_over_lines() -> None:
    class Example:
        """An example.

        Attributes:
          one: The first
              of them.
          two: The other.

        """

    assert descriptions(Example) == {"one": "The first of them.", "two": "The other."}
