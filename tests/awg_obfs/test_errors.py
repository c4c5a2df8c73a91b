"""What people read when a configuration is wrong: one line, harmless, to the point."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import (
    LONGEST_SHOWN,
    ConfFileError,
    KeyProblem,
    LineProblem,
    NumberError,
    NumberFault,
    ParametersError,
    TagChainError,
    TagFault,
    TagProblem,
    shown,
)


@given(text=st.text())
def test_what_somebody_wrote_is_shown_in_one_short_harmless_line(text: str) -> None:
    quoted = shown(text)

    assert quoted.isascii()
    assert quoted.isprintable()
    assert quoted[0] == quoted[-1] == '"'
    assert len(text) <= LONGEST_SHOWN or "..." in quoted


@pytest.mark.parametrize("fault", TagFault)
def test_every_fault_of_a_tag_has_its_sentence(fault: TagFault) -> None:
    text = str(TagProblem(fault, "rc", "x"))

    assert text
    assert "TagFault" not in text
    assert "\n" not in text


def test_a_faulty_tag_is_named() -> None:
    assert str(TagProblem(TagFault.UNKNOWN, "zz")) == "there is no tag <zz>"
    assert (
        str(TagProblem(TagFault.NUMBER_SYNTAX, "r", "five")) == '<r> needs a number, as in <r 16>, not "five"'
    )
    assert str(TagProblem(TagFault.TOO_LONG)).startswith("the packet is longer")


def test_a_chain_tells_all_its_faults_in_one_line() -> None:
    error = TagChainError((TagProblem(TagFault.EMPTY), TagProblem(TagFault.ODD_HEX, "b")))

    assert str(error) == "a tag is empty: <>; <b> has an odd number of hex digits"


def test_numbers_say_what_is_wrong_with_them() -> None:
    assert str(NumberError("x", NumberFault.SYNTAX)) == '"x" is not a decimal number'
    assert str(NumberError("9" * 99, NumberFault.RANGE)).endswith('..." is too large a number')


def test_a_problem_is_the_key_what_is_wrong_and_what_to_write() -> None:
    assert str(KeyProblem("jc", "must not be 0", "leave it out")) == "jc: must not be 0; leave it out"
    assert str(KeyProblem("jc", "must not be 0")) == "jc: must not be 0"
    assert str(LineProblem(3, "no key", "add it")) == "line 3: no key; add it"
    assert str(LineProblem(3, "no key")) == "line 3: no key"


def test_all_problems_are_told_each_in_its_line() -> None:
    assert str(ParametersError((KeyProblem("jc", "a"), KeyProblem("s1", "b")))) == "jc: a\ns1: b"
    assert str(ConfFileError((LineProblem(1, "a"), LineProblem(2, "b")))) == "line 1: a\nline 2: b"
