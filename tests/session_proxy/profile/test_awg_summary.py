from __future__ import annotations

from pathlib import Path

from awg_obfs.policy import INWARD
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.awg_summary import server_summary, session_summary
from tests.support.awg_files import SOUND, ClientText, ServerText

MORE = 'jc = 4\njmin = 8\njmax = 80\ni1 = "<b 0xc0ff><r 4>"\ni3 = "<t>"\n'


def test_a_server_is_summed_up(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(str(ServerText(awg=SOUND)))
    server = load_awg_server(file, environ={})

    summary = server_summary(server)

    assert summary == {
        "listen": "127.0.0.1:4443",
        "peers": "laptop",
        "mtu": 1500,
        "keepalive_padding": "no",
        "junk": "none",
        "padding": "20,30,25,0",
        "headers": "100000-200000,300000-400000,500000-600000,700000-800000",
        "signatures": "none",
        "allow": "0.0.0.0/0, ::/0",
        "deny": f"0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, and {len(INWARD) - 4} more",
        "sessions": 1024,
        "streams": 512,
        "idle": 300.0,
    }


def test_a_session_is_summed_up_without_keys_and_credentials(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text(str(ClientText(awg=SOUND + MORE)))
    client = load_awg_client(file, environ={})

    summary = session_summary(client.upstream())

    assert summary["junk"] == "4x8-80"
    assert summary["signatures"] == "i1:6,i3:4"
    for secret in (client.private_key, client.public_key, client.auth.password):
        assert secret.reveal() not in str(summary)


def test_plain_wireguard_says_so(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text(str(ClientText()))

    assert session_summary(load_awg_client(file, environ={}).upstream())["obfuscation"] == "none"
