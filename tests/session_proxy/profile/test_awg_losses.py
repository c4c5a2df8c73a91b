from __future__ import annotations

from pathlib import Path

from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.awg_losses import export_losses
from tests.support.awg_files import SOUND, ClientText, ServerText


def write(folder: Path, text: object) -> Path:
    file = folder / "file.toml"
    file.write_text(str(text))
    return file


def test_everything_that_a_server_loses_is_a_line_with_its_key(tmp_path: Path) -> None:
    keys = f'state = "var"\nmtu = 1400\nkeepalive_padding = true\n{ServerText().keys}'
    more = '[policy]\ndeny = []\n[limits]\nidle = 5\nstreams = 7\n[admin]\nlisten = "127.0.0.1:1"\n'
    text = ServerText(keys=keys, awg=f"{SOUND}s4 = 5\n", more=more)
    server = load_awg_server(write(tmp_path, text), environ={})

    assert list(export_losses(server)) == [
        "listen: the host 127.0.0.1 is left out, for AmneziaWG listens on every address",
        "state: is left out, for AmneziaWG remembers no handshakes over a restart",
        "peers[0].name: 'laptop' is left out, for AmneziaWG's peers have no names",
        "policy.deny: is left out, for AmneziaWG lets peers go anywhere; use a firewall there",
        "keepalive_padding: is left out, for AmneziaWG has none, and so with s4 above 0 keepalives are dropped",
        "limits.streams: is left out, for AmneziaWG has no such bound",
        "limits.idle: is left out, for AmneziaWG has no such bound",
        "admin: is left out, for AmneziaWG has no admin listener",
    ]


def test_a_server_that_loses_nothing(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "[::]"):
        text = str(ServerText()).replace("laptop", "client-1").replace("127.0.0.1", host)
        assert not list(export_losses(load_awg_server(write(tmp_path, text), environ={})))


def test_a_client_loses_its_proxy_port_and_what_belongs_to_it(tmp_path: Path) -> None:
    more = '[limits]\nconnections = 5\n[admin]\nlisten = "127.0.0.1:1"\n'
    text = ClientText(keys=f"keepalive_padding = true\n{ClientText().keys}", more=more)
    client = load_awg_client(write(tmp_path, text), environ={})

    assert list(export_losses(client)) == [
        "listen: is left out, for AmneziaWG has no proxy port",
        "auth: is left out, for AmneziaWG has no proxy port",
        "keepalive_padding: is left out, for AmneziaWG has none",
        "limits.connections: is left out, for AmneziaWG has no such bound",
        "admin: is left out, for AmneziaWG has no admin listener",
    ]
