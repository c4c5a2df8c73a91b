from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import ParametersError
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.parameters import DEFAULT, KEYS, Parameters, parameters_from_mapping
from awg_obfs.protocol.tags import TagChain

FULL: dict[str, object] = {
    "jc": 4, "jmin": 40, "jmax": 70, "s1": 20, "s2": 30, "s3": 25, "s4": 12,
    "h1": "100000-200000", "h2": "300000-400000", "h3": 500000, "h4": "700000-800000",
    "i1": "<b 0xc0><r 12><t>", "i2": "<c>", "i3": "<rc 4>", "i4": "<rd 4>", "i5": "<r 4><dz 2>",
}  # fmt: skip


def problems(values: dict[str, object]) -> list[str]:
    with pytest.raises(ParametersError) as caught:
        parameters_from_mapping(values)
    return [str(problem) for problem in caught.value.problems]


def test_nothing_given_is_plain_wireguard() -> None:
    assert parameters_from_mapping({}) == DEFAULT == Parameters()
    assert [str(header) for header in DEFAULT.headers] == ["1", "2", "3", "4"]
    assert DEFAULT.paddings == (0, 0, 0, 0)
    assert DEFAULT.chains == ()
    assert DEFAULT.as_mapping() == {}


def test_everything_there_is_can_be_given() -> None:
    parameters = parameters_from_mapping(FULL)

    assert set(FULL) == set(KEYS)
    assert (parameters.jc, parameters.jmin, parameters.jmax) == (4, 40, 70)
    assert parameters.paddings == (20, 30, 25, 12)
    assert parameters.headers[2] == HeaderRange(500000, 500000)
    assert [str(chain) for chain in parameters.chains] == [FULL[f"i{number}"] for number in range(1, 6)]


def test_what_is_written_is_read_again() -> None:
    parameters = parameters_from_mapping(FULL)

    assert parameters.as_mapping() == FULL
    assert parameters_from_mapping(parameters.as_mapping()) == parameters


def test_numbers_may_be_text_as_the_reference_reads_it() -> None:
    parameters = parameters_from_mapping({"jc": "+4", "s1": "007", "s2": "-0", "h1": "0011-0012", "h2": 20})

    assert (parameters.jc, parameters.s1, parameters.s2) == (4, 7, 0)
    assert (str(parameters.h1), str(parameters.h2)) == ("11-12", "20")


def test_a_missing_signature_packet_leaves_its_place_empty() -> None:
    parameters = parameters_from_mapping({"i2": "<r 1>", "i4": ""})

    assert parameters.signatures == (None, TagChain.parse("<r 1>"), None, TagChain.parse(""), None)
    assert parameters.chains == (TagChain.parse("<r 1>"), TagChain.parse(""))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("jc", 0, "jc: must not be 0; leave it out: then it is 0"),
        ("jc", "0", "jc: must not be 0; leave it out: then it is 0"),
        ("jmin", -1, "jmin: -1 is out of range; write a number above 0, as in jmin = 40"),
        ("jmax", 2**63, f"jmax: {2**63} is out of range; write a number above 0, as in jmax = 70"),
        ("jmax", str(2**63), f'jmax: "{2**63}" is too large a number; write a number, as in jmax = 70'),
        ("jc", " 4", 'jc: " 4" is not a decimal number; write a number, as in jc = 4'),
        ("jc", True, "jc: must be a number, not true or false; write it as in jc = 4"),
        ("jc", 4.5, "jc: must be a number, not a fraction; write it as in jc = 4"),
        ("s1", -1, "s1: -1 is out of range; write 0 or more, as in s1 = 20"),
        ("s4", [1], "s4: must be a number, not a list; write it as in s4 = 12"),
        ("i1", 5, 'i1: must be text, not a number; write tags, as in i1 = "<b 0xc0ff><r 16>"'),
    ],
)
def test_a_wrong_value_says_what_to_write_instead(key: str, value: object, message: str) -> None:
    assert problems({key: value}) == [message]


@pytest.mark.parametrize("value", ["1-2-3", "5-", "", "9-8", "4294967296", -5, True, None, 1.5, {}])
def test_a_wrong_header_says_what_a_header_is(value: object) -> None:
    (problem,) = problems({"h2": value})

    assert problem.startswith("h2: ")
    assert problem.endswith(
        '; write a number or a range of them up to 4294967295, as in h2 = "300000-400000"'
    )


def test_a_wrong_chain_names_its_faults_and_the_tags_there_are() -> None:
    (problem,) = problems({"i3": "<b 0x1><q>"})

    assert problem.startswith(
        "i3: <b> has an odd number of hex digits; there is no tag <q>; the tags are <b HEX>,"
    )


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("Jc", "did you mean jc?"),
        ("jmn", "did you mean jmin?"),
        ("i6", "there are jc, "),
        ("itime", "there are jc, "),
    ],
)
def test_an_unknown_key_is_told_from_a_slip(key: str, hint: str) -> None:
    (problem,) = problems({key: 1})

    assert problem.startswith(f"{key}: there is no such parameter; {hint}")


def test_all_faults_are_told_at_once() -> None:
    assert len(problems({"jc": 0, "s1": -1, "h1": "x", "i1": "<", "nonsense": 1, "s2": 5})) == 5


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers())
)


@given(values=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), VALUES))
def test_any_table_is_read_or_refused_key_by_key(values: dict[str, object]) -> None:
    try:
        parameters = parameters_from_mapping(values)
    except ParametersError:
        told = problems(values)
        assert all("; " in problem for problem in told)
        assert all(any(problem.startswith(f"{key}: ") for key in values) for problem in told)
    else:
        assert parameters_from_mapping(parameters.as_mapping()) == parameters
