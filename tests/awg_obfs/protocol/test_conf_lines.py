from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.protocol.conf_lines import Field, split


def only_field(line: str) -> Field:
    (field,) = split(f"[Interface]\n{line}").interface.fields
    return field


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("Jc = 4", "Jc", "4"),
        ("  J c=\t4 # four", "Jc", "4"),
        ("H1 = 5 - 9\r", "H1", "5-9"),
        ("I1 = <b 0x00> <r 2> ", "I1", "<b 0x00> <r 2>"),
        ("i5=<t>", "i5", "<t>"),
        ("I1 = <b 0x00># not sent", "I1", "<b 0x00>"),
        # awg(8) looks at the first two characters of the line.
        (" I1 = <b 0x00>", "I1", "<b0x00>"),
        ("PrivateKey = abc=", "PrivateKey", "abc="),
    ],
)
def test_blanks_and_comments_go_as_awg_drops_them(line: str, name: str, value: str) -> None:
    field = only_field(line)

    assert (field.name, field.value, field.key) == (name, value, name.lower())


def test_what_awg_quick_reads_keeps_its_blanks() -> None:
    assert only_field("PostUp = ip rule add  table 5 # ours").text == "ip rule add  table 5"


def test_sections_are_told_apart_whatever_their_case() -> None:
    sections = split("\ufeff[interface]\nA=1\n[ Peer ]\nB=2\n[INTERFACE]\nC=3\n[PEER]\n")

    assert [field.name for field in sections.interface.fields] == ["A", "C"]
    assert [[field.name for field in peer.fields] for peer in sections.peers] == [["B"], []]
    assert [peer.line for peer in sections.peers] == [3, 7]
    assert sections.problems == ()


def test_lines_outside_sections_and_lines_without_a_value_are_told() -> None:
    sections = split("A = 1\n# comment\n\n[Interface]\nnonsense\n[Wireguard]\n")

    assert [str(problem) for problem in sections.problems] == [
        "line 1: this stands in no section; begin the file with [Interface]",
        'line 5: "nonsense" is no section and no KEY = VALUE; remove it',
        'line 6: "[Wireguard]" is no section and no KEY = VALUE; remove it',
    ]


@pytest.mark.parametrize("line", ["PrivateKey: {}=", "PrivateKey {}=", "PrivateKey: {}", "{}=", "{}"])
def test_a_slip_shows_no_key(line: str) -> None:
    secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlYzA"
    sections = split("[Interface]\n" + line.format(secret))

    (problem,) = sections.problems
    assert problem.line == 2
    assert secret[:10] not in str(problem)
    assert not sections.interface.fields


def test_a_field_does_not_show_its_value() -> None:
    assert "secret" not in repr(only_field("PrivateKey = secret"))


@given(content=st.text())
def test_any_text_is_taken_apart(content: str) -> None:
    sections = split(content)

    assert all(1 <= problem.line <= content.count("\n") + 1 for problem in sections.problems)
