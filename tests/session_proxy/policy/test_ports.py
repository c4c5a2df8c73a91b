from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_proxy.policy.ports import ALL_PORTS, InvalidPortsError, PortSet
from tests.support.routes import port_sets

ANY_PORT = st.integers(1, 65535)


def test_numbers_and_ranges_are_merged() -> None:
    """Overlapping and adjacent ranges become one, in ascending order."""
    ports = PortSet.parse(["8000-8999", 443, "444", "8500-9100", 22])

    assert ports.ranges == ((22, 22), (443, 444), (8000, 9100))
    assert str(ports) == "22, 443-444, 8000-9100"


@pytest.mark.parametrize(
    "item", ["", "x", "0", 0, 65536, "65536", "-1", "1-", "-", "1-x", "1--2", "\uff11", "9" * 99]
)
def test_what_is_no_port_is_refused(item: str | int) -> None:
    with pytest.raises(InvalidPortsError) as info:
        PortSet.parse([item])

    assert "65535" in info.value.fix


def test_a_backward_range_is_refused_with_the_forward_one() -> None:
    with pytest.raises(InvalidPortsError) as info:
        PortSet.parse(["90-80"])

    assert info.value.fix == 'write "80-90"'


@given(st.lists(st.tuples(ANY_PORT, ANY_PORT).map(sorted)), ANY_PORT)
def test_merging_keeps_every_port(pairs: list[list[int]], port: int) -> None:
    ports = PortSet.parse(f"{first}-{last}" for first, last in pairs)

    assert ports.contains(port) == any(first <= port <= last for first, last in pairs)


@given(port_sets(), port_sets())
def test_covering_is_containing_every_port(one: PortSet, other: PortSet) -> None:
    every = all(one.contains(port) for port in range(1, 14) if other.contains(port))

    assert one.covers(other) == every
    assert PortSet.union([one, other]).covers(other)
    assert ALL_PORTS.covers(one)
