"""What an agent's SSH server is called; `test_relay_ssh.py` logs in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_relay.server.ssh_login import LoginSettings, host_name
from tunnel_relay.ssh.hostkeys import parse_known_hosts
from tunnel_relay.ssh.keys import generate_identity

KEY = generate_identity().public_line

NAMES = st.text(min_size=1, max_size=12) | st.text("aA*?!,|#@[]%/ ", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("user", "agent", "name"),
    [
        ("alice", "nas-1.home", "alice/nas-1.home"),
        ("Alice", "nas", "%41lice/nas"),
        ("*", "a/b", "%2a/a%2fb"),
        ("!ä|1|", "x y", "%21%c3%a4%7c1%7c/x%20y"),
    ],
)
def test_what_an_agent_is_called_in_known_hosts(user: str, agent: str, name: str) -> None:
    assert host_name(user, agent) == name


@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES))
def test_a_line_is_about_one_agent_of_one_user(ours: tuple[str, str], theirs: tuple[str, str]) -> None:
    [entry] = parse_known_hosts(f"{host_name(*ours)} {KEY}\n")
    assert entry.names(host_name(*ours))
    assert entry.names(host_name(*theirs)) == (ours == theirs)


def test_a_connection_may_be_silent_for_longer_than_a_session_is_kept() -> None:
    assert LoginSettings().ssh.keepalive_timeout > 120
