from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from awg_obfs.policy import EVERYWHERE, INWARD
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.keys import key_to_text
from session_proxy.errors import ProfileError
from session_proxy.profile.awg_loading import load_awg_client, load_awg_file, load_awg_server
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.model import ListenAddress
from tests.support.awg_files import CLIENT_PUBLIC, SERVER_KEY, SOUND, ClientText, ServerText


def write(folder: Path, text: object) -> Path:
    file = folder / "file.toml"
    file.write_text(str(text))
    file.chmod(0o600)
    return file


def test_a_servers_file_with_everything(tmp_path: Path) -> None:
    more = (
        '[policy]\nallow = ["10.1.0.0/16", "::1"]\ndeny = []\n[limits]\nstreams = 5\nidle = 7.5\n'
        '[admin]\nlisten = "127.0.0.1:4443"\n'
    )
    (tmp_path / "server.key").write_text(key_to_text(SERVER_KEY) + "\n")
    keys = 'listen = "[::]:443"\nprivate_key = "file:server.key"\nstate = "var"\nmtu = 1400\n'
    file = write(tmp_path, ServerText(keys=keys, awg=SOUND, more=more))
    warnings: list[str] = []

    server = load_awg_server(file, environ={}, warn=warnings.append)

    assert not warnings
    assert server.listen == ListenAddress("::", 443)
    assert server.private_key.reveal() == key_to_text(SERVER_KEY)
    assert server.state == tmp_path / "var"
    assert server.awg.h2 == HeaderRange(300000, 400000)
    assert [peer.name for peer in server.peers] == ["laptop"]
    assert server.policy.allow == (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("::1/128"))
    assert server.policy.deny == ()
    assert (server.limits.streams, server.limits.idle) == (5, 7.5)
    assert (server.file, server.name) == (file, "file")


def test_a_server_denies_what_is_not_the_internet(tmp_path: Path) -> None:
    server = load_awg_server(write(tmp_path, ServerText()), environ={})

    assert (server.policy.allow, server.policy.deny) == (EVERYWHERE, INWARD)
    for inward in (
        "127.0.0.1",
        "10.9.8.7",
        "192.168.1.1",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
    ):
        assert any(ipaddress.ip_address(inward) in network for network in server.policy.deny), inward


@pytest.mark.parametrize("bad", ['"a.example"', "5", '"10.0.0.1/8"', '"10.0.0.0/99"'])
def test_a_policy_is_made_of_networks(bad: str, tmp_path: Path) -> None:
    file = write(tmp_path, ServerText(more=f"[policy]\nallow = [{bad}]"))

    with pytest.raises(ProfileError, match=r"policy\.allow\[0\]: .*; "):
        load_awg_server(file, environ={})


def test_a_clients_file(tmp_path: Path) -> None:
    client = load_awg_client(write(tmp_path, ClientText(awg=SOUND)), environ={})

    assert [str(address) for address in client.listen] == ["127.0.0.1:0"]
    assert str(client.endpoint) == "127.0.0.1:4443"
    assert client.auth.user == "app"


def test_a_client_without_credentials_for_its_port_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r'auth: is missing; write auth = \{ user = "app"'):
        load_awg_client(write(tmp_path, ClientText(auth="")), environ={})


def test_other_machines_may_use_the_port_since_it_asks_for_credentials(tmp_path: Path) -> None:
    client = load_awg_client(write(tmp_path, ClientText(listen='listen = "0.0.0.0:1080"\n')), environ={})

    assert client.listen == (ListenAddress("0.0.0.0", 1080),)


def test_a_clients_port_is_checked_as_a_profiles_is(tmp_path: Path) -> None:
    listen = 'listen = ["127.0.0.1:1", "127.0.0.1:1"]\n'
    auth = '[auth]\nuser = "a:b"\npass = "c"\n'
    more = '[admin]\nlisten = "127.0.0.1:1"\n'

    with pytest.raises(ProfileError) as info:
        load_awg_client(write(tmp_path, ClientText(listen=listen, auth=auth, more=more)), environ={})

    assert [problem.path for problem in info.value.problems] == ["listen[1]", "admin.listen", "auth.user"]


def test_variables_override_both(tmp_path: Path) -> None:
    environ = {"SPROXY_LISTEN": "127.0.0.1:7", "SPROXY_AWG_JC": "5", "SPROXY_AWG_JMAX": "50"}

    assert load_awg_server(write(tmp_path, ServerText()), environ=environ).awg.jc == 5
    client = load_awg_client(write(tmp_path, ClientText()), environ=environ)
    assert (client.awg.jc, client.listen[0].port) == (5, 7)


def test_a_private_key_in_a_file_of_everybodys_draws_a_warning_and_a_public_one_none(tmp_path: Path) -> None:
    file = write(tmp_path, ServerText(awg=SOUND))
    file.chmod(0o644)
    warnings: list[str] = []

    load_awg_server(file, environ={}, warn=warnings.append)
    assert len(warnings) == 1
    assert "private_key is written out in a file that others can read" in warnings[0]

    (tmp_path / "key").write_text(key_to_text(SERVER_KEY))
    file.write_text(str(ServerText(keys='private_key = "file:key"\n', awg=SOUND)))
    load_awg_server(file, environ={}, warn=warnings.append)
    assert len(warnings) == 1
    assert CLIENT_PUBLIC in file.read_text()


def test_plain_wireguard_draws_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []

    load_awg_client(write(tmp_path, ClientText()), environ={}, warn=warnings.append)

    assert "awg.h1: the headers are WireGuard's own" in warnings[0]


@pytest.mark.parametrize(
    ("text", "cls"),
    [(ServerText(), AwgServer), (ClientText(), AwgClient), ('default = "direct"', type(None))],
)
def test_a_file_is_known_by_its_keys(text: object, cls: type, tmp_path: Path) -> None:
    assert isinstance(load_awg_file(write(tmp_path, text), environ={}), cls)
