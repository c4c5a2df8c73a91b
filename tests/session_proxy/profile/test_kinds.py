"""Files of one kind, named where another is wanted: the answer is a command, and no list of unknown keys."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from session_proxy.errors import ProfileError
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.kinds import (
    AWG_CLIENT,
    AWG_SERVER,
    KINDS,
    PROFILE,
    RELAY_AGENT,
    RELAY_SERVER,
    FileKind,
    check_kind,
    kind_of,
)
from session_proxy.profile.loading import load_profile
from session_proxy.profile.relay_loading import load_relay_agent, load_relay_server
from tests.support.awg_files import ClientText, ServerText
from tests.support.relay_files import JWKS, AgentText, RelayText

TEXTS = {
    PROFILE: 'listen = "127.0.0.1:1"\ndefault = "edge"\n' + ClientText().as_upstream(),
    AWG_SERVER: str(ServerText()),
    AWG_CLIENT: str(ClientText()),
    RELAY_SERVER: str(RelayText(jwt=f"[jwt]\nkeys = '{JWKS}'\n")),
    RELAY_AGENT: str(AgentText()),
}
LOADERS: dict[FileKind, Callable[..., object]] = {
    PROFILE: load_profile,
    AWG_SERVER: load_awg_server,
    AWG_CLIENT: load_awg_client,
    RELAY_SERVER: load_relay_server,
    RELAY_AGENT: load_relay_agent,
}


@pytest.mark.parametrize("wanted", LOADERS, ids=lambda kind: kind.example)
@pytest.mark.parametrize("found", TEXTS, ids=lambda kind: kind.example)
def test_a_file_of_another_kind_is_one_line_with_its_command(
    found: FileKind, wanted: FileKind, tmp_path: Path
) -> None:
    file = tmp_path / "my file.toml"
    file.write_text(TEXTS[found])
    assert kind_of(tomllib.loads(TEXTS[found])) is found
    if found is wanted:
        LOADERS[wanted](file, environ={})
        return

    with pytest.raises(ProfileError) as info:
        LOADERS[wanted](file, environ={})

    assert str(info.value) == (
        f"{file}: is {found.words}, not {wanted.words}; serve it with \"{found.command} '{file}'\""
    )


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ("", PROFILE),
        ("listen", PROFILE),
        ("listen auth limits admin", PROFILE),
        ("private_key", AWG_SERVER),
        ("listen private_key awg", AWG_SERVER),
        ("private_key public_key peers", AWG_SERVER),
        ("private_key auth", AWG_CLIENT),
        ("listen jwt", RELAY_SERVER),
        ("listen tls jwt admin limits", RELAY_SERVER),
        ("listen limits users", RELAY_SERVER),
        ("token endpoints", RELAY_AGENT),
        ("name services admin", RELAY_AGENT),
        ("endpoint", AWG_CLIENT),
    ],
)
def test_half_a_file_is_what_most_of_its_keys_say(keys: str, kind: FileKind) -> None:
    assert kind_of(keys.split()) is kind


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ("", AWG_SERVER),
        ("listen private_key awg", AWG_CLIENT),
        ("peers endpoint public_key preshared_key auth", AWG_SERVER),
        ("default private_key awg mtu", PROFILE),
        ("lisen privat_key", AWG_CLIENT),
        ("lisen jtw", RELAY_SERVER),
        ("nane services token", RELAY_AGENT),
    ],
)
def test_what_may_be_meant_is_read_as_what_is_wanted(keys: str, wanted: FileKind) -> None:
    """Its faults are then told key by key."""
    check_kind(Path("file.toml"), keys.split(), wanted)


def test_every_kind_has_keys_that_no_other_has() -> None:
    for kind in KINDS:
        assert kind.own_keys
