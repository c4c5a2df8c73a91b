from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.rules import Rule
from session_proxy.profile import shape
from session_proxy.profile.model import Limits, Profile, SshUpstream, SsmUpstream
from session_proxy.profile.secret_sources import SecretSources
from session_proxy.profile.structuring import Structurer


def structurer(labels: dict[str, str] | None = None) -> Structurer:
    return Structurer(SecretSources(Path("/base"), {}), {"upstreams": {"direct", "dev"}}, labels or {})


def test_a_fault_leaves_the_default_in_its_place() -> None:
    notes = structurer()
    value = notes.structure({"idle": "x", "connect": 5}, Limits)

    assert value == Limits(connect=5)
    assert not notes.sound("idle")
    assert notes.sound("connect")


def test_a_broken_item_is_left_out_and_the_others_keep_their_place() -> None:
    notes = structurer()
    routes: list[object] = ["text", {"match": "a", "upstream": "dev"}]
    profile = notes.structure({"routes": routes}, Profile)

    assert profile is not None
    assert profile.routes == (Rule.of("a", "dev"),)
    assert (notes.index("routes", 0), notes.item("routes", 0)) == (1, "routes[1]")


def test_an_item_alone_has_the_path_of_its_key() -> None:
    notes = structurer()
    notes.structure({"listen": "127.0.0.1:1"}, Profile)

    assert notes.item("listen", 0) == "listen"


def test_what_cannot_be_built_at_all_is_nothing() -> None:
    notes = structurer()

    assert notes.structure({}, SshUpstream) is None
    assert [problem.path for problem in notes.problems] == ["kind", "address"][1:]


def test_a_missing_list_is_empty_so_that_the_rest_can_be_checked() -> None:
    notes = structurer()

    assert notes.structure({"upstream": "dev"}, Rule) == Rule(match=(), upstream=("dev",))
    assert notes.structure({"kind": "ssm"}, SsmUpstream) is not None
    assert [problem.path for problem in notes.problems] == ["match", "instances"]


def test_labels_stand_for_paths() -> None:
    notes = structurer({"listen": "SPROXY_LISTEN"})
    notes.structure({"listen": ["x", "127.0.0.1:1"], "default": "x"}, Profile)

    assert [problem.path for problem in notes.problems] == ["SPROXY_LISTEN", "default"]


def test_soundness_is_about_whole_steps() -> None:
    notes = structurer()
    notes.note("routes[1].match", "is wrong", "write it")

    assert not notes.sound("routes[1]")
    assert not notes.sound("routes[1].match")
    assert notes.sound("routes[1].mat")
    assert notes.sound("routes[10]")


def keys_of(cls: type) -> set[str]:
    """Every key that a file of class *cls* can have, at any depth."""
    found: set[str] = set()
    for key, attribute in shape.keys(cls).items():
        found.add(key)
        kinds = [attribute.type, *getattr(attribute.type, "__args__", ())]
        for inner in {inner for kind in kinds for inner in shape.tables_in(kind)}:
            found |= keys_of(inner)
    return found


KEYS = sorted(keys_of(Profile))
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 70_000)
    | st.floats()
    | st.sampled_from(["", "direct", "ssm", "a:1", "*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(list(shape.keys(Profile))), DOCUMENTS))
def test_any_data_is_a_profile_or_has_problems(document: dict[str, object]) -> None:
    """Nothing but problems comes out of what people may write, however wrong."""
    notes = structurer()
    profile = notes.structure(document, Profile)

    assert profile is not None
    assert all(problem.message and problem.fix for problem in notes.problems)


@pytest.mark.parametrize("cls", [Profile, Limits, SsmUpstream, SshUpstream])
def test_every_range_is_whole(cls: type) -> None:
    """A field with a minimum has a maximum, and its default lies between."""
    for attribute in attrs.fields(cls):
        if "minimum" in attribute.metadata:
            assert attribute.metadata["minimum"] <= attribute.default <= attribute.metadata["maximum"]
