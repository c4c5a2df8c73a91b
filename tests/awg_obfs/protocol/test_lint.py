from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awg_obfs.errors import ParametersError
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.lint import Severity, checked_parameters, findings
from awg_obfs.protocol.parameters import Parameters, parameters_from_mapping
from awg_obfs.protocol.sizes import QUIC_SMALLEST, quic_datagram_size
from awg_obfs.protocol.tags import TagChain

GOOD: dict[str, object] = {
    "jc": 4, "jmin": 40, "jmax": 70, "s1": 20, "s2": 30,
    "h1": "100000-200000", "h2": "300000-400000", "h3": "500000-600000", "h4": "700000-800000",
    "i1": "<b 0xc0><r 12><t>",
}  # fmt: skip


def found(
    severity: Severity, changes: Mapping[str, object], path_mtu: int = 1500, *, ipv6: bool = False
) -> list[str]:
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    report = findings(parameters_from_mapping(values), path_mtu=path_mtu, ipv6=ipv6)
    return [str(finding) for finding in report if finding.severity is severity]


def test_there_is_nothing_to_say_about_good_parameters() -> None:
    parameters, warnings = checked_parameters(GOOD)

    assert parameters == parameters_from_mapping(GOOD)
    assert warnings == ()


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"jmin": 90}, "jmax: is below jmin, which is 90; write jmax = 120, or lower jmin"),
        ({"jmax": None}, "jmax: is missing and so 0, below jmin, which is 40; write jmax = 70, or lower jmin"),
        ({"jc": 127}, "jc: 127 junk packets, 1 signature packets and the initiation are more than the 128 datagram"),
        ({"h1": 2, "h2": None}, "h1: 2 shares numbers with h2, which is 2 (its default); write four ranges that sh"),
        ({"h3": 150000}, "h3: 150000 shares numbers with h1, which is 100000-200000; write four ranges that share "),
        ({"h4": "0-4294967295"}, 'h4: covers every number there is; write a narrower range, as in h4 = "700000-800'),
        ({"jmax": 65508}, "jmax: 65508 is more than the 65507 bytes of a datagram; write jmax = 70, for instance"),
        ({"s1": 65360}, "s1: 65360 and the 148 bytes of the initiation are more than the 65507 bytes of a datagram"),
        ({"s2": 65416}, "s2: 65416 and the 92 bytes of the response are more than the 65507 bytes of a datagram; "),
        ({"s3": 65444}, "s3: 65444 and the 64 bytes of the cookie reply are more than the 65507 bytes of a datagra"),
        ({"s4": 241}, "s4: 241 leaves QUIC less than the 1200 bytes it needs of a path MTU of 1500; write s4 = 240"),
        ({"s4": 70000}, "s4: 70000 leaves QUIC less than the 1200 bytes it needs of a path MTU of 1500; write s4 ="),
    ],
)  # fmt: skip
def test_what_crashes_the_reference_or_fits_nowhere_is_refused(
    changes: dict[str, object], finding: str
) -> None:
    (refused,) = found(Severity.REFUSE, changes)

    assert refused.startswith(finding)


@pytest.mark.parametrize(
    ("path_mtu", "ipv6", "s4", "fix"),
    [
        (1280, False, 21, "write s4 = 20 or less"),
        (1280, True, 1, "leave s4 out"),
        (1279, True, 0, "the path's MTU must be 1280 or more"),
        (1200, False, 0, "the path's MTU must be 1260 or more"),
    ],
)
def test_quic_must_have_its_room(path_mtu: int, ipv6: bool, s4: int, fix: str) -> None:
    (refused,) = found(Severity.REFUSE, {"s4": s4}, path_mtu, ipv6=ipv6)

    assert refused.startswith("s4: ")
    assert refused.endswith(f"; {fix}")


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"jc": None}, "jmax: has no effect without jc; write jc = 4, or leave jmin and jmax out"),
        ({"jc": 3}, "jc: 3 junk packets are not what is recommended; write a number from 4 to 12"),
        ({"jc": 13}, "jc: 13 junk packets are not what is recommended; write a number from 4 to 12"),
        ({"jmin": None}, "jmin: is 0, so junk packets can be empty, and a receiver may lose the datagram after an"),
        ({"jmin": 70}, "jmax: equals jmin, so all junk packets have 70 bytes: a pattern; write jmax = 100, for ins"),
        ({"jmax": 1473}, "jmax: 1473 is more than the 1472 bytes that the path takes in one piece, and fragments g"),
        ({"s1": 1400}, "s1: 1400 and the 148 bytes of the initiation are more than the 1472 bytes that the path ta"),
        ({"s3": 1409}, "s3: 1409 and the 64 bytes of the cookie reply are more than the 1472 bytes that the path t"),
        ({"s1": None}, "s1: the initiation has 148 bytes, which is easy to recognise; write a number from 15 to 150"),
        ({"s2": 151}, "s2: 151 is more than is recommended; write a number from 15 to 150"),
        ({"s2": 76}, "s2: with 76 the response is as long as the initiation, 168 bytes; write another number, as i"),
        ({"s3": 58}, "s3: with 58 the cookie reply is as long as the response, 122 bytes; write another number, as"),
        ({"s3": 104}, "s3: with 104 the cookie reply is as long as the initiation, 168 bytes; write another number"),
        ({"s4": 8}, "s4: keepalives are not padded, so a receiver with s4 above 0 drops them; write keepalive_padd"),
        ({"h2": "2-9"}, "h2: 2-9 has numbers from 1 to 4, which are WireGuard's own; write a range above 4, as in"),
        ({"h4": 3000000000}, "h4: 3000000000 has numbers that some programs take for negative ones; stay between 5"),
        ({"i2": "<r 64>"}, "i2: is all random, so it resembles no protocol; begin with the bytes of one, as in <r"),
        ({"i2": ""}, "i2: makes an empty datagram, and a receiver may lose the datagram after an empty one; leave"),
        ({"i2": "no tags"}, "i2: makes an empty datagram, and a receiver may lose the datagram after an empty one;"),
        ({"i2": "<b 0x00><r 1472>"}, "i2: 1473 bytes are more than the 1472 bytes that the path takes in one piece"),
    ],
)  # fmt: skip
def test_what_betrays_us_or_loses_datagrams_draws_a_warning(changes: dict[str, object], finding: str) -> None:
    assert found(Severity.REFUSE, changes) == []
    (warned,) = found(Severity.WARN, changes)

    assert warned.startswith(finding)


def test_wide_ranges_and_padded_data_cost_packets() -> None:
    changes: dict[str, object] = {"h2": "1000000-1000000000", "s4": 8}
    warned = found(Severity.WARN, changes)

    text = "h2: 1000000-1000000000 is so wide that of data packets as long as a handshake message one in 4 is lost; "
    assert any(line.startswith(text) for line in warned)
    assert not any(line.startswith("h2") for line in found(Severity.WARN, changes | {"s4": 0}))
    # A data packet is looked for by its own header, so a wide h4 does no harm.
    assert not any(
        line.startswith("h4") for line in found(Severity.WARN, {"s4": 8, "h4": "1000000-1000000000"})
    )


def test_padded_keepalives_are_fine() -> None:
    assert findings(parameters_from_mapping(GOOD | {"s4": 8}), keepalive_padding=True) == ()


def test_plain_wireguard_is_told_once() -> None:
    (warned,) = findings(Parameters())

    assert str(warned).startswith(
        "h1: the headers are WireGuard's own, which every filter knows; write four ranges"
    )


def test_what_is_refused_is_not_warned_about_too() -> None:
    report = findings(parameters_from_mapping(GOOD | {"jmax": 70000}))

    assert [(finding.severity, finding.key) for finding in report] == [(Severity.REFUSE, "jmax")]


def test_a_file_s_table_is_refused_with_all_its_faults() -> None:
    with pytest.raises(ParametersError) as caught:
        checked_parameters(GOOD | {"jc": 200, "h2": 150000, "s4": 300})
    assert [problem.key for problem in caught.value.problems] == ["jc", "h2", "s4"]
    assert all(problem.fix for problem in caught.value.problems)


def test_a_proposed_number_can_be_taken() -> None:
    """The three messages are told apart by their lengths where possible, so a proposal must not clash again."""
    changes: dict[str, object] = {"s1": 20, "s2": 76, "s3": 105}
    (warned,) = found(Severity.WARN, changes)
    proposal = re.search(r"s2 = (\d+)$", warned)

    assert proposal is not None
    # 77 would make the response as long as the cookie reply.
    assert proposal[1] == "78"
    assert found(Severity.WARN, changes | {"s2": int(proposal[1])}) == []


RANGES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(
    lambda p: HeaderRange(min(p), max(p))
)
CHAINS = st.none() | st.sampled_from(("", "<r 5>", "<t>", "<r 2000>", "<r 40000><r 40000>", "<r -5>")).map(
    lambda text: TagChain.parse(text, strict=True)
)
NUMBERS = st.integers(0, 200) | st.integers(0, 2**63 - 1)
PARAMETERS = st.builds(
    Parameters,
    jc=NUMBERS, jmin=NUMBERS, jmax=NUMBERS, s1=NUMBERS, s2=NUMBERS, s3=NUMBERS, s4=NUMBERS,
    h1=RANGES, h2=RANGES, h3=RANGES, h4=RANGES, i1=CHAINS, i2=CHAINS, i3=CHAINS, i4=CHAINS, i5=CHAINS,
)  # fmt: skip


@given(parameters=PARAMETERS, path_mtu=st.integers(576, 9000), ipv6=st.booleans())
def test_whatever_passes_can_be_used(parameters: Parameters, path_mtu: int, ipv6: bool) -> None:
    report = findings(parameters, path_mtu=path_mtu, ipv6=ipv6)

    assert all(finding.text and finding.proposal and "\n" not in str(finding) for finding in report)
    if not any(finding.severity is Severity.REFUSE for finding in report):
        assert parameters.jmin <= parameters.jmax <= 65507
        assert parameters.jc + len(parameters.chains) + 1 <= 128
        assert quic_datagram_size(path_mtu, parameters.s4, ipv6=ipv6) >= QUIC_SMALLEST
        assert not any(header.covers_everything for header in parameters.headers)
