from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from session_proxy.cli.main import app
from session_proxy.errors import ProfileError
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from tests.session_proxy.profile.test_awg_writing import CLIENT_CONF, KEY, SERVER_CONF
from tests.support.awg_files import ClientText, ServerText


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["awg-import", *arguments])


@pytest.mark.parametrize("text", [CLIENT_CONF, SERVER_CONF])
def test_a_conf_goes_there_and_back(text: str, tmp_path: Path) -> None:
    conf, ours = tmp_path / "wg0.conf", tmp_path / "ours.toml"
    conf.write_text(text)

    there = run(str(conf), "--output", str(ours))
    back = run("--export", str(ours))

    assert (there.exit_code, there.stdout) == (0, "")
    assert stat.S_IMODE(ours.stat().st_mode) == 0o600
    load = load_awg_client if text is CLIENT_CONF else load_awg_server
    assert load(ours, environ={}).awg.h1.start
    assert sorted(back.stdout.splitlines()) == sorted(text.splitlines())


def test_it_prints_and_names_what_has_no_effect(tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    conf.write_text(CLIENT_CONF)

    result = run(str(conf))

    assert f'private_key = "{KEY}"' in result.stdout
    assert f"warning: {conf}: [Interface] Address, DNS: without" in result.stderr
    assert KEY not in result.stderr


def test_what_an_export_drops_is_named_on_stderr(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text(str(ClientText()))

    result = run("--export", str(file))

    assert result.stderr.startswith(
        f"warning: {file}: listen: is left out, for AmneziaWG has no proxy port\n"
        f"warning: {file}: auth: is left out, for AmneziaWG has no proxy port\n"
    )
    assert "sesame" not in result.output


def test_an_mtu_that_cannot_be_taken_over_is_named(tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    conf.write_text(CLIENT_CONF.replace("MTU = 1376", "MTU = 1500"))

    result = run(str(conf))

    assert f"warning: {conf}: [Interface] MTU: 1500 needs a path of 1560 bytes" in result.stderr
    assert "\nmtu = " not in result.stdout


def test_every_fault_is_said_with_its_line(tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    conf.write_text(
        CLIENT_CONF.replace("Jc = 4", "Jc = x").replace(f"PrivateKey = {KEY}", "PrivateKey = abc")
    )

    result = run(str(conf))

    assert isinstance(result.exception, ProfileError)
    lines = str(result.exception).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"{conf}:2", f"{conf}:7"]


def test_refused_parameters_and_what_is_no_text(tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    conf.write_text(CLIENT_CONF.replace("Jmax = 80", "Jmax = 4"))
    result = run(str(conf))
    assert isinstance(result.exception, ProfileError)
    assert str(result.exception).startswith(f"{conf}: Jmax: is below jmin")

    conf.write_bytes(b"\xff\xfe")
    result = run(str(conf))
    assert isinstance(result.exception, ProfileError)
    assert str(result.exception) == f"{conf}:1: is not UTF-8 text; save it as UTF-8"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.conf", "there is no such file; check the path"),
        ("", "is a folder; write {}/wg0.conf, for example"),
    ],
)
def test_a_conf_that_cannot_be_read_is_one_line(name: str, said: str, tmp_path: Path) -> None:
    result = run(str(tmp_path / name))

    assert isinstance(result.exception, ProfileError)
    assert str(result.exception) == f"{tmp_path / name}: {said.format(tmp_path)}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ServerText(), 'is the file of an awg server, not a .conf; turn it into one with "{}"'),
        (ClientText(), 'is the file of an awg client, not a .conf; turn it into one with "{}"'),
        ('default = "direct"', "is a profile, not a .conf; name a .conf of AmneziaWG"),
    ],
)
def test_a_file_of_ours_is_no_conf(text: object, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(str(text))

    result = run(str(file))

    assert isinstance(result.exception, ProfileError)
    assert str(result.exception) == f"{file}: {said.format(f'sproxy awg-import --export {file}')}"


def test_a_conf_is_exported_already(tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    conf.write_text(CLIENT_CONF)

    result = run("--export", str(conf))

    assert isinstance(result.exception, ProfileError)
    assert "is a .conf of WireGuard or AmneziaWG" in str(result.exception)


def test_a_profile_is_not_exported(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text('default = "direct"\n')

    result = run("--export", str(file))

    assert isinstance(result.exception, ProfileError)
    assert str(result.exception) == (
        f"{file}: is neither a server's file nor a client's; name a server.toml or client.toml"
    )
