from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from awg_obfs.protocol.conf import ConfFile
from awg_obfs.protocol.keys import key_from_text, key_to_text, public_key_of
from awg_obfs.protocol.presets import Preset
from session_proxy.errors import ProfileError
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.awg_model import AwgClient, AwgServer
from session_proxy.profile.awg_writing import export_conf, import_conf, import_warnings, new_pair
from session_proxy.target import Target

KEY = key_to_text(bytes(range(32)))
OTHER = key_to_text(public_key_of(bytes(range(1, 33))))

CLIENT_CONF = f"""\
[Interface]
PrivateKey = {KEY}
ListenPort = 21841
Address = 10.8.1.2/32
DNS = 1.1.1.1, 1.0.0.1
MTU = 1376
Jc = 4
Jmin = 8
Jmax = 80
S1 = 69
S2 = 35
H1 = 1148530862
H2 = 638183541-638183999
H3 = 1820126871
H4 = 1352086464
I1 = <b 0xc0ff ee><r 16>
I3 = <b 0xc0ffee><t>

[Peer]
PublicKey = {OTHER}
PresharedKey = {KEY}
Endpoint = vpn.example.com:41235
AllowedIPs = 0.0.0.0/0, ::/0
PersistentKeepalive = 25
""".replace("<b 0xc0ff ee>", "<b 0xc0ffee>")

SERVER_CONF = f"""\
[Interface]
PrivateKey = {KEY}
ListenPort = 41235
Address = 10.8.1.1/24
PostUp = iptables -A FORWARD -i %i -j ACCEPT
H1 = 10
H2 = 20
H3 = 30
H4 = 40

[Peer]
PublicKey = {OTHER}
AllowedIPs = 10.8.1.2/32

[Peer]
PublicKey = {key_to_text(public_key_of(bytes(range(2, 34))))}
PresharedKey = {KEY}
AllowedIPs = 10.8.1.3/32
"""


def load(text: str, folder: Path) -> AwgClient | AwgServer:
    file = folder / "file.toml"
    file.write_text(text)
    file.chmod(0o600)
    reader = load_awg_client if "endpoint" in tomllib.loads(text) else load_awg_server
    return reader(file, environ={})


def as_client(text: str, folder: Path) -> AwgClient:
    client = load(text, folder)
    assert isinstance(client, AwgClient)
    return client


def as_server(text: str, folder: Path) -> AwgServer:
    server = load(text, folder)
    assert isinstance(server, AwgServer)
    return server


@pytest.mark.parametrize("preset", Preset)
def test_a_new_pair_fits_and_the_lint_finds_nothing(preset: Preset, tmp_path: Path) -> None:
    pair = new_pair(Target.parse("vpn.example.com:443"), preset, os.urandom)
    files = {tmp_path / "server.toml": pair.server, tmp_path / "client.toml": pair.client}
    for file, text in files.items():
        file.write_text(text)
        file.chmod(0o600)
    warnings: list[str] = []

    server = load_awg_server(tmp_path / "server.toml", environ={}, warn=warnings.append)
    client = load_awg_client(tmp_path / "client.toml", environ={}, warn=warnings.append)

    assert warnings == []
    assert (server.awg.paddings, server.awg.headers) == (client.awg.paddings, client.awg.headers)
    assert client.awg.jc
    assert client.awg.i1 is not None
    assert not server.awg.chains
    for mine, theirs in (
        (server.private_key, client.public_key),
        (client.private_key, server.peers[0].public_key),
    ):
        assert public_key_of(key_from_text(mine.reveal())) == key_from_text(theirs.reveal())
    assert client.preshared_key == server.peers[0].preshared_key
    assert str(client.endpoint) == "vpn.example.com:443"
    assert str(server.listen) == "0.0.0.0:443"


def test_no_two_pairs_are_alike() -> None:
    one, two = (new_pair(Target.parse("[2001:db8::1]:443"), Preset.DNS, os.urandom) for _ in range(2))

    lines = set(one.client.splitlines()) & set(two.client.splitlines())
    assert not any(line.startswith(("private_key", "pass ", "preshared", "h1")) for line in lines)
    assert 'listen = "[::]:443"' in one.server


def test_a_pair_does_not_show_what_it_holds() -> None:
    assert repr(new_pair(Target.parse("a:443"), Preset.STUN, os.urandom)) == "Pair()"


def test_a_clients_conf_round_trips(tmp_path: Path) -> None:
    conf = ConfFile.parse(CLIENT_CONF)

    client = as_client(import_conf(conf, os.urandom), tmp_path)

    assert str(client.endpoint) == "vpn.example.com:41235"
    assert client.awg == conf.interface.parameters
    assert client.auth.user == "app"
    # The path's: that of packets, and what is around each of them.
    assert client.mtu == 1376 + 60
    assert "Address = 10.8.1.2/32" in client.conf.interface
    exported = export_conf(client)
    assert exported == conf
    assert ConfFile.parse(exported.as_text()) == conf
    assert sorted(exported.as_text().splitlines()) == sorted(CLIENT_CONF.splitlines())


def test_a_servers_conf_round_trips(tmp_path: Path) -> None:
    conf = ConfFile.parse(SERVER_CONF)

    server = as_server(import_conf(conf, os.urandom), tmp_path)

    assert str(server.listen) == "0.0.0.0:41235"
    assert [peer.name for peer in server.peers] == ["client-1", "client-2"]
    assert export_conf(server) == conf
    assert sorted(export_conf(server).as_text().splitlines()) == sorted(SERVER_CONF.splitlines())


def test_another_mtu_goes_back(tmp_path: Path) -> None:
    text = import_conf(ConfFile.parse(CLIENT_CONF), os.urandom)
    client = as_client(text.replace("mtu = 1436", "mtu = 1400"), tmp_path)

    assert "MTU = 1340\n" in export_conf(client).as_text()
    assert "1376" not in export_conf(client).as_text()


def test_paddings_are_checked_on_the_path_that_the_file_has() -> None:
    text = CLIENT_CONF.replace("MTU = 1376", "MTU = 1220").replace("Jmax = 80", "Jmax = 1400")

    assert any(
        "jmax: 1400 is more than the 1252 bytes" in told for told in import_warnings(ConfFile.parse(text))
    )


def test_what_has_no_effect_here_is_named() -> None:
    warnings = import_warnings(ConfFile.parse(CLIENT_CONF))

    assert any("Address, DNS: without" in warning for warning in warnings)
    assert any("AllowedIPs" in warning for warning in warnings)
    assert import_warnings(ConfFile.parse(SERVER_CONF))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (f"PrivateKey = {KEY}\n", "", "[Interface] has no PrivateKey"),
        ("Jmax = 80\n", "Jmax = 3\n", "Jmax: is below jmin"),
        ("Endpoint = vpn.example.com:41235\n", "", ""),
        (
            "PersistentKeepalive = 25\n",
            f"[Peer]\nPublicKey = {KEY}\nEndpoint = b:1\n",
            "2 of 2 peers have an Endpoint",
        ),
    ],
)
def test_a_conf_that_makes_no_file(old: str, new: str, says: str) -> None:
    assert old in CLIENT_CONF
    conf = ConfFile.parse(CLIENT_CONF.replace(old, new))
    if not says:
        assert "[[peers]]" in import_conf(conf, os.urandom)
        return

    with pytest.raises(ProfileError) as info:
        import_conf(conf, os.urandom)

    assert says in str(info.value)
    assert KEY not in str(info.value)


def test_a_conf_without_peers_makes_no_file() -> None:
    with pytest.raises(ProfileError, match=r"there is no \[Peer\]"):
        import_conf(ConfFile.parse(f"[Interface]\nPrivateKey = {KEY}\n"), os.urandom)
