from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from session_proxy.cli.main import app
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.private_files import OutputError


def test_it_writes_two_files_that_fit_and_says_what_to_run(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "my vpn"

    result = CliRunner().invoke(app, ["awg-keygen", str(folder), "--endpoint", "vpn.example.com:443"])

    assert result.exit_code == 0
    assert result.stdout == (
        f"{folder}/server.toml belongs on the server, vpn.example.com; run there: sproxy awg-server server.toml\n"
        f"{folder}/client.toml belongs on the client; run there: sproxy awg-client client.toml\n"
    )
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    server = load_awg_server(folder / "server.toml", environ={})
    client = load_awg_client(folder / "client.toml", environ={})
    assert str(client.endpoint) == "vpn.example.com:443"
    assert client.awg.headers == server.awg.headers
    for secret in (client.private_key, client.auth.password, server.private_key):
        assert secret.reveal() not in result.output


@pytest.mark.parametrize("endpoint", [None, "127.0.0.1:4443", "[::1]:4443", "localhost:4443"])
def test_an_endpoint_of_this_machine_is_for_this_machine(endpoint: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "my vpn"

    result = CliRunner().invoke(
        app, ["awg-keygen", str(folder), *(["--endpoint", endpoint] if endpoint else [])]
    )

    where = endpoint or "127.0.0.1:4443"
    assert str(load_awg_server(folder / "server.toml", environ={}).listen) == where
    assert result.stdout == "".join(
        f"{folder}/{side}.toml belongs on this machine, which alone finds {where}; "
        f"run: sproxy awg-{side} '{folder}/{side}.toml'\n"
        for side in ("server", "client")
    )


def test_keys_that_are_there_stay(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text("mine")

    result = CliRunner().invoke(app, ["awg-keygen", str(tmp_path)])

    assert isinstance(result.exception, OutputError)
    assert [file.name for file in tmp_path.iterdir()] == ["client.toml"]


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "vpn").write_text("mine")

    result = CliRunner().invoke(app, ["awg-keygen", str(tmp_path / "vpn")])

    assert isinstance(result.exception, OutputError)
    assert str(result.exception) == f"{tmp_path}/vpn: is a file; name a folder"


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("vpn.example.com", "'vpn.example.com' has no port; write HOST:PORT"),
        ("a b:1", "'a b' is not a host name; write HOST:PORT"),
        ("h:0", "0 is not a port; write HOST:PORT with a port from 1 to 65535"),
        ("[::1]", "'[::1]' is ambiguous; write an IPv6 address as [ADDRESS]:PORT"),
    ],
)
def test_an_endpoint_that_is_none_is_a_usage_error(endpoint: str, said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["awg-keygen", str(tmp_path), "--endpoint", endpoint])

    assert result.exit_code == 2
    assert result.stderr.endswith(f"Invalid value for --endpoint: {said}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["dns", "quic", "stun"])
def test_presets_have_names(preset: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["awg-keygen", str(tmp_path), "--preset", preset])

    assert result.exit_code == 0
    assert load_awg_client(tmp_path / "client.toml", environ={}).awg.i1 is not None


@pytest.mark.parametrize("preset", ["dns", "quic", "stun"])
def test_the_lint_finds_nothing_in_what_it_writes(preset: str, tmp_path: Path) -> None:
    """Keepalives too are padded, on both sides: s4 is not 0."""
    warnings: list[str] = []

    CliRunner().invoke(app, ["awg-keygen", str(tmp_path), "--preset", preset])

    server = load_awg_server(tmp_path / "server.toml", environ={}, warn=warnings.append)
    client = load_awg_client(tmp_path / "client.toml", environ={}, warn=warnings.append)
    assert (server.keepalive_padding, client.keepalive_padding) == (True, True)
    assert warnings == []
