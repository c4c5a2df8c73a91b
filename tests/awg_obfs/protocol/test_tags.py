from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import TagChainError, TagFault
from awg_obfs.protocol.tags import COUNTED, MAX_UDP_PAYLOAD, Tag, TagChain, TagKind
from tests.support.awg import RecordedRandomness

LENGTHS = st.integers(0, 300)
TAGS = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda data: Tag(TagKind.BYTES, data)),
    st.tuples(st.sampled_from(sorted(COUNTED)), LENGTHS).map(lambda pair: Tag(pair[0], count=pair[1])),
    st.sampled_from((TagKind.CLOCK, TagKind.COUNTER, TagKind.DATA, TagKind.DATA_STRING)).map(Tag),
)
# Texts in which tags are likely, whole and broken.
TEXTS = st.lists(
    st.sampled_from(
        ["<", ">", " ", "b", "r", "rd", "t", "c", "dz", "0x", "12", "-1", "\u00a0", "\x1c", "<r 3>", "é"]
    )
).map("".join)


def made(text: str, random: RecordedRandomness | None = None, counter: int = 0) -> bytes:
    return TagChain.parse(text).generate(
        random or RecordedRandomness(seed="tags"), lambda: 0x01020304, counter
    )


@given(tags=st.lists(TAGS, max_size=6))
def test_a_chain_reads_as_it_is_normalised(tags: list[Tag]) -> None:
    chain = TagChain("", tuple(tags))

    assert TagChain.parse(chain.normalised).tags == chain.tags


@given(tags=st.lists(TAGS, max_size=6), data=st.binary(max_size=100))
def test_a_packet_is_as_long_as_its_chain_says(tags: list[Tag], data: bytes) -> None:
    chain = TagChain("", tuple(tags))
    random = RecordedRandomness(seed="length")

    assert len(chain.generate(random, lambda: 0)) == chain.length
    assert len(chain.generate(random, lambda: 0, data=data)) == sum(tag.length(len(data)) for tag in tags)


def test_digits_and_letters_are_what_they_say() -> None:
    assert made("<rd 500>").isdigit()
    assert made("<rc 500>").isalpha()


def test_the_clock_is_read_for_each_tag() -> None:
    clock = itertools.count(1)
    packet = TagChain.parse("<t><t>").generate(RecordedRandomness(), lambda: next(clock))

    assert packet.hex() == "0000000100000002"


def test_the_counter_has_32_bits() -> None:
    assert made("<c>", counter=0x1_0000_0005).hex() == "00000005"
    assert made("<c 9>", counter=258).hex() == "00000102"


def test_text_outside_tags_and_further_fields_mean_nothing() -> None:
    chain = TagChain.parse("DNS: <b 0x00ff and so on> then <r 2>")

    assert chain.normalised == "<b 0x00ff><r 2>"
    assert str(chain) == "DNS: <b 0x00ff and so on> then <r 2>"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<r -1>", TagFault.NEGATIVE),
        ("<dz -1>", TagFault.NEGATIVE),
        ("<rc 65508>", TagFault.TOO_LONG),
        ("<r 65507><t>", TagFault.TOO_LONG),
        ("<r 9223372036854775807>", TagFault.TOO_LONG),
    ],
)
def test_lengths_that_no_datagram_has_are_refused_unless_strict(text: str, fault: TagFault) -> None:
    """The reference takes them and crashes when it makes the packet."""
    with pytest.raises(TagChainError) as caught:
        TagChain.parse(text)
    assert [problem.fault for problem in caught.value.problems] == [fault]
    TagChain.parse(text, strict=True)


@pytest.mark.parametrize("text", ["<r -1>", "<dz 9223372036854775807>"])
def test_nothing_is_made_of_such_a_length(text: str) -> None:
    with pytest.raises(ValueError, match="no packet has such a length"):
        TagChain.parse(text, strict=True).generate(RecordedRandomness(seed="x"), lambda: 0)


def test_the_largest_datagram_can_be_made() -> None:
    assert len(made(f"<r {MAX_UDP_PAYLOAD}>")) == MAX_UDP_PAYLOAD


def test_an_unclosed_tag_hides_all_other_faults() -> None:
    with pytest.raises(TagChainError) as caught:
        TagChain.parse("<x><b 0x1><r")
    assert [problem.fault for problem in caught.value.problems] == [TagFault.UNCLOSED]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("<r 4>", True),
        ("<rc 3><rd 2><r 1>", True),
        ("<r 4><b 0x00>", False),
        ("<t>", False),
        ("", False),
        ("<r 0>", False),
    ],
)
def test_a_packet_is_all_random_or_not(text: str, drawn: bool) -> None:
    assert TagChain.parse(text).drawn is drawn


@given(source=TEXTS | st.text() | st.binary(), strict=st.booleans())
def test_any_text_is_a_chain_or_refused(source: str | bytes, strict: bool) -> None:
    try:
        chain = TagChain.parse(source, strict=strict)
    except TagChainError:
        with pytest.raises(TagChainError, match=r"^[ -~]+$"):
            TagChain.parse(source, strict=strict)
        return
    if not strict:
        assert len(chain.generate(RecordedRandomness(seed="any"), lambda: 0)) == chain.length
