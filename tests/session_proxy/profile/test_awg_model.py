from __future__ import annotations

from pathlib import Path

import attrs

from awg_obfs.limits import Limits
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.awg_model import SERVER, AwgLimits
from session_proxy.supervision.awg_server import server_settings
from tests.support.awg_files import ClientText, ServerText


def test_a_client_is_a_profile_with_one_way_out(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    file.write_text(str(ClientText(awg="s1 = 20")))
    client = load_awg_client(file, environ={})

    profile = client.profile(file, "client")

    assert profile.default == SERVER
    assert not profile.routes
    assert (profile.listen, profile.auth, profile.limits) == (client.listen, client.auth, client.limits)
    assert profile.startup_of(SERVER) == "background"
    assert (profile.file, profile.name) == (file, "client")
    upstream = profile.upstreams[SERVER]
    assert upstream == client.upstream()
    assert upstream.kind == "awg"
    assert upstream.awg.s1 == 20


def test_nothing_shows_a_key(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text(str(ClientText(keys=ClientText().keys + f'preshared_key = "{"A" * 43}="\n')))
    client = load_awg_client(file, environ={})
    file.write_text(str(ServerText()))
    server = load_awg_server(file, environ={})

    for value in (client, client.upstream(), server):
        for secret in (client.private_key, client.preshared_key, server.private_key):
            assert secret is not None
            assert secret.reveal() not in repr(value)


def test_every_bound_of_a_server_can_be_set(tmp_path: Path) -> None:
    assert attrs.asdict(AwgLimits()) == attrs.asdict(Limits())
    others = {name: value + 1 for name, value in attrs.asdict(Limits()).items()}
    file = tmp_path / "server.toml"
    lines = "".join(f"{name} = {value:g}\n" for name, value in others.items())
    file.write_text(str(ServerText(more=f"[limits]\n{lines}")))

    settings = server_settings(load_awg_server(file, environ={}))

    assert attrs.asdict(settings.limits) == others
