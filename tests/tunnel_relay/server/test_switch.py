"""Which agent is meant; that frames get there, test_joined shows."""

from __future__ import annotations

import pytest

from tunnel_relay.server.switch import Port, Switch


def agent(switch: Switch, name: str, instance: str, user: str = "alice") -> Port:
    port = Port(switch, user, agent=name, instance=instance)
    switch.register(port)
    return port


def test_an_agent_is_found_by_its_name() -> None:
    switch = Switch()
    nas, other = agent(switch, "nas", "1"), agent(switch, "pi", "2")
    assert switch.find("alice", "nas", None) is nas
    assert switch.find("alice", "pi", "2") is other
    assert switch.find("alice", "pi", "1") is None
    assert switch.find("bob", "nas", None) is None
    assert switch.why_none("bob", "nas") == "no agent 'nas' is connected"
    assert switch.why_none("alice", "x") == "no agent 'x' is connected; there is 'nas', 'pi'"
    switch.unregister(nas)
    assert switch.find("alice", "nas", None) is None


def test_the_only_one_needs_no_name() -> None:
    switch = Switch()
    assert switch.only_agent("alice") == ""
    assert switch.why_none("alice", "") == "no agent is connected"
    nas = agent(switch, "nas", "1")
    agent(switch, "nas", "2")
    agent(switch, "box", "3", user="bob")
    assert switch.only_agent("alice") == "nas"
    agent(switch, "pi", "4")
    assert switch.only_agent("alice") == ""
    assert switch.why_none("alice", "") == "say which agent: there is 'nas', 'pi'"
    # A session goes on with the one that it began with.
    assert switch.find("alice", "", "1") is nas
    assert switch.find("alice", "", "3") is None
    assert switch.find("alice", "", None) is None


@pytest.mark.parametrize("same", [True, False])
def test_who_was_replaced_does_not_unregister_the_other(same: bool) -> None:
    switch = Switch()
    old = agent(switch, "nas", "1")
    new = agent(switch, "nas", "1" if same else "2")
    switch.unregister(old)
    assert switch.find("alice", "nas", None) is new
