from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from session_proxy.cli.main import app
from session_proxy.errors import ProfileError
from session_proxy.profile.private_files import OutputError
from session_proxy.profile.relay_keys import verifier_of
from session_proxy.profile.relay_loading import load_relay_server
from tests.support.relay_files import SIGNING_PEM
from tunnel_relay.protocol.tokens import Scope


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["relay-token", *map(str, arguments)])


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return a file with a new key."""
    file = tmp_path / "signing.json"
    result = invoke("--new-key", file)
    assert result.exit_code == 0
    (tmp_path / "jwks.json").write_text(result.stdout)
    return file


def test_what_is_printed_fits_a_relay(key: Path, tmp_path: Path) -> None:
    relay = tmp_path / "relay.toml"
    relay.write_text('listen = "127.0.0.1:0"\n[jwt]\nkeys = "file:jwks.json"\n')
    server = load_relay_server(relay, environ={})
    now = time.time()

    result = invoke("--key", key, "--user", "alice", "--tier", "premium", "--scope", "agent,client")

    assert result.exit_code == 0
    (token,) = result.stdout.splitlines()
    claims = verifier_of(server.jwt).verify(token, now)
    assert (claims.user, claims.tier, claims.scopes) == ("alice", "premium", {Scope.AGENT, Scope.CLIENT})
    assert now + 30 * 86400 - 1 <= claims.expires <= time.time() + 30 * 86400
    assert "'alice', tier premium, agent, client: until 20" in result.stderr
    assert result.stderr.endswith(f" UTC; its id is {claims.token_id}\n")


def test_little_is_needed_and_every_token_has_an_id_of_its_own(key: Path, tmp_path: Path) -> None:
    relay = tmp_path / "relay.toml"
    relay.write_text('listen = "127.0.0.1:0"\n[jwt]\naudience = "us"\nkeys = "file:jwks.json"\n')
    verifier = verifier_of(load_relay_server(relay, environ={}).jwt)

    issued = [
        invoke("--key", key, "--user", "bob", "--expires", "90s", "--audience", "us").stdout.strip()
        for _ in range(2)
    ]
    first, second = (verifier.verify(token, time.time()) for token in issued)

    assert (first.user, first.tier, first.scopes) == ("bob", "free", {Scope.CLIENT})
    assert first.expires <= time.time() + 90
    assert first.token_id != second.token_id


def test_a_key_is_for_its_owner_and_stays_what_it_is(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_text()

    result = invoke("--new-key", key)

    assert isinstance(result.exception, OutputError)
    # What the shell has emptied then can be had again.
    assert str(result.exception).endswith(f"sproxy relay-token --key {key} --public")
    assert key.read_text() == before
    assert result.stdout == ""
    assert json.loads(invoke("--key", key, "--public").stdout)["keys"][0]["kid"] == json.loads(before)["kid"]


def test_what_is_printed_is_no_secret(tmp_path: Path) -> None:
    result = invoke("--new-key", tmp_path / "key", "--algorithm", "HS256")

    secret = (tmp_path / "key").read_text().strip()
    assert result.stdout == ""
    assert secret not in result.output
    assert 'algorithms = "HS256"' in result.stderr
    token = invoke("--key", tmp_path / "key", "--user", "a")
    assert token.exit_code == 0
    assert secret not in token.output


def test_a_key_that_others_can_read_is_warned_of(key: Path) -> None:
    key.chmod(0o644)

    result = invoke("--key", key, "--user", "a")

    assert f"warning: {key}: others can read it; chmod 600 {key}" in result.stderr
    assert len(result.stdout.splitlines()) == 1


def test_a_key_in_pem_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(SIGNING_PEM)

    assert invoke("--key", tmp_path / "key.pem", "--user", "a", "--kid", "one").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--key: write --key FILE to issue a token, or --new-key FILE to make a key"),
        (["--key", "k", "--new-key", "n"], "--key: write --key FILE to issue a token, or"),
        (["--key", "k"], "--user: write --user USER: whose token it is"),
        (["--new-key", "n", "--user", "a"], "--user: a key is nobody's"),
        (["--new-key", "n", "--public"], "--public: --new-key prints it already"),
        (["--key", "k", "--user", ""], "--user: '' is no user; write up to 128"),
        (["--key", "k", "--user", "a\nb"], "--user: 'a\\nb' is no user"),
        (["--key", "k", "--user", "a", "--tier", "a b"], "--tier: the name 'a b' cannot be used; use up to"),
        (["--key", "k", "--user", "a", "--scope", "admin"], "--scope: 'admin' is no scope; write client,"),
        (["--key", "k", "--user", "a", "--expires", "1y"], "--expires: '1y' is no time; write a number"),
        (["--key", "k", "--user", "a", "--expires", "9999d"], "--expires: '9999d' is longer than ten"),
        (["--key", "k", "--user", "a", "--audience", ""], "--audience: write the audience"),
        (["--new-key", "n", "--algorithm", "none"], "--algorithm"),
    ],
)
def test_wrong_command_lines(arguments: list[str], said: str) -> None:
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_token_that_no_relay_would_look_at_is_not_issued(key: Path) -> None:
    result = invoke("--key", key, "--user", "a", "--audience", "x" * 8192)

    assert result.exit_code == 2
    assert "too long for a relay" in result.stderr
    assert result.stdout == ""


def test_a_key_that_is_none_is_a_problem_of_its_file(tmp_path: Path) -> None:
    result = invoke("--key", tmp_path / "none", "--user", "a")

    assert isinstance(result.exception, ProfileError)
    assert str(result.exception) == f"{tmp_path}/none: there is no such file; check the path"
