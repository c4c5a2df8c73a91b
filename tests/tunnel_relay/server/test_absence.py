from __future__ import annotations

import pytest

from tunnel_relay.server.absence import MOST_NAMED, why_leaving, why_none


@pytest.mark.parametrize(
    ("name", "others", "why"),
    [
        ("nas", [], "no agent 'nas' is connected, nor any other of 'alice'"),
        ("nas", ["pi", "box"], "no agent 'nas' is connected; there is 'box', 'pi'"),
        ("", [], "no agent of 'alice' is connected"),
        ("", ["pi", "box"], "say which agent: there is 'box', 'pi'"),
    ],
)
def test_who_is_there_is_said(name: str, others: list[str], why: str) -> None:
    assert why_none("alice", name, others) == why


def test_a_message_names_a_few() -> None:
    assert why_none("alice", "", [f"agent-{number}" for number in range(1000)]).count("'agent-") == MOST_NAMED


def test_one_that_ends_is_there() -> None:
    assert why_leaving("nas") == "the agent 'nas' is being shut down"
