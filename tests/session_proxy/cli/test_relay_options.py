"""What the command line says of a relay."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from session_proxy.cli.relay_options import RelayOptions, check_name
from session_proxy.errors import ProfileError
from tests.support.relay_tokens import make_token

PROFILE = """\
[upstreams.home]
kind = "relay"
token = "file:token"
agent = "nas"
endpoints = [{ url = "wss://relay.example.com" }]
[upstreams.home.ssh]
user = "me"
"""


def test_a_profile_is_found_as_sproxy_run_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(make_token("alice"))
    (tmp_path / "config.toml").write_text(PROFILE)
    monkeypatch.chdir(tmp_path)
    choice = RelayOptions(None, None, None, None, None).choose("pi")
    assert (choice.name, choice.upstream.agent) == ("home", "pi")
    named = RelayOptions(tmp_path / "config.toml", "home", None, None, None)
    assert named.choose(None).upstream.agent == "nas"
    with pytest.raises(ProfileError, match="is not there"):
        RelayOptions(None, "office", None, None, None).choose(None)


def test_options_do_without_a_profile(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(make_token("alice"))
    options = RelayOptions(None, None, ["ws://127.0.0.1:1"], tmp_path / "token", None)
    options.check()
    assert options.choose("nas").upstream.agent == "nas"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (RelayOptions(Path("p"), None, ["ws://127.0.0.1"], Path("t"), None), "--profile"),
        (RelayOptions(None, "home", ["ws://127.0.0.1"], Path("t"), None), "--upstream"),
        (RelayOptions(None, None, ["ws://127.0.0.1"], None, None), "--endpoint"),
        (RelayOptions(None, None, None, Path("t"), None), "--token-file"),
        (RelayOptions(None, None, [], None, Path("ca")), "--ca"),
    ],
)
def test_what_does_not_go_together_is_a_wrong_command_line(options: RelayOptions, hint: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        options.check()
    assert caught.value.param_hint == hint


def test_names_are_checked() -> None:
    check_name("nas-1.home", "AGENT")
    with pytest.raises(typer.BadParameter, match="the name 'a b' cannot be used"):
        check_name("a b", "AGENT")
