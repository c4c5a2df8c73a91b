"""Every kind of bad session: where the problem is said to be, and what to write instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from awg_obfs.policy import INWARD
from awg_obfs.protocol.keys import key_to_text
from session_proxy.errors import ProfileError
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.loading import load_profile
from tests.support.awg import vectors
from tests.support.awg_files import CLIENT_PUBLIC, SERVER_KEY, SERVER_PUBLIC, SOUND, ClientText, ServerText


@attrs.frozen
class Bad:
    """An ``[awg]`` table, the *key* of its one problem, and parts of what is said about it."""

    name: str
    awg: str
    key: str
    message: str
    fix: str


JUNK = "jmin = 8\njmax = 80\n"

# The rows of spec 10, and what envelope.md asks to refuse.
BAD = [
    Bad("jc 0", "jc = 0", "jc", "must not be 0", "leave it out"),
    Bad("jc negative", "jc = -1", "jc", "out of range", "above 0"),
    Bad("jc over the batch", "jc = 128\n" + JUNK, "jc", "more than the 128 datagrams", "jc = 127 or less"),
    Bad(
        "jc over the batch with signatures",
        "jc = 123\n" + JUNK + "".join(f'i{number} = "<b 0x01>"\n' for number in range(1, 6)),
        "jc",
        "5 signature packets",
        "jc = 122 or less",
    ),
    Bad("jmax below jmin", "jc = 4\njmin = 70\njmax = 40", "jmax", "below jmin", "lower jmin"),
    Bad("jmax unset", "jc = 4\njmin = 70", "jmax", "is missing", "write jmax = 100"),
    Bad("jmax over a datagram", "jc = 4\njmin = 8\njmax = 70000", "jmax", "65507", "jmax = 70"),
    Bad("s1 over a datagram", "s1 = 65500", "s1", "65507", "s1 = 30"),
    Bad("s2 negative", "s2 = -1", "s2", "out of range", "0 or more"),
    Bad("s3 over a datagram", "s3 = 65500", "s3", "65507", "s3 = 30"),
    Bad("s4 over the path", "s4 = 250", "s4", "leaves QUIC less than the 1200", "s4 = 240 or less"),
    Bad("s4 absurd", "s4 = 99999", "s4", "leaves QUIC less", "s4 = 240 or less"),
    Bad("h2 as the usual h1", "h2 = 1", "h2", "shares numbers with h1", "four ranges"),
    Bad("h1 as the usual h2", "h1 = 2", "h1", "shares numbers with h2", "four ranges"),
    Bad("h overlap", 'h1 = "10-20"\nh2 = "20-30"', "h2", "shares numbers with h1", "four ranges"),
    Bad("h4 full", 'h4 = "0-4294967295"', "h4", "covers every number", "narrower"),
    Bad("h1 as text", 'h1 = "a"', "h1", "neither a number nor a range", "a range"),
    Bad("i1 unknown tag", 'i1 = "<x>"', "i1", "there is no tag <x>", "the tags are"),
    Bad("i1 negative", 'i1 = "<r -1>"', "i1", "negative", "the tags are"),
    Bad("i2 absurd", 'i2 = "<r 99999999>"', "i2", "65507", "the tags are"),
    Bad("unknown key", "s5 = 1", "s5", "no such parameter", "s1 to s4"),
    Bad("capital", "Jc = 4", "Jc", "no such parameter", "did you mean jc"),
    Bad("a list", "jc = [4]", "jc", "not a list", "as in jc = 4"),
]


def problem_of(error: ProfileError) -> tuple[str, str, str]:
    (problem,) = error.problems
    assert str(error).count("\n") == 0
    return problem.path, problem.message, problem.fix


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_bad_parameters_are_one_line_with_the_key_of_each_file(bad: Bad, tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    cases = {
        "upstreams.edge.awg.": (ClientText(awg=bad.awg).as_upstream(), load_profile),
        "awg.": (str(ClientText(awg=bad.awg)), load_awg_client),
    }
    for prefix, (text, load) in cases.items():
        file.write_text(text)
        with pytest.raises(ProfileError) as info:
            load(file, environ={})
        path, message, fix = problem_of(info.value)
        assert path == prefix + bad.key
        assert bad.message in message
        assert bad.fix in fix


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_server_refuses_the_same(bad: Bad, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(str(ServerText(awg=bad.awg)))

    with pytest.raises(ProfileError) as info:
        load_awg_server(file, environ={})

    assert problem_of(info.value)[0] == f"awg.{bad.key}"


@pytest.mark.parametrize(
    "case", vectors("tag_parse", lambda case: not case["ok"] and case["input"] is not None)
)
def test_every_refused_chain_is_one_line(case: dict[str, Any], tmp_path: Path) -> None:
    if case["errors"] == ["unknown_tag:c"]:
        pytest.skip("<c> is offered here")
    refuse("i1", case["input"], tmp_path)


@pytest.mark.parametrize("case", vectors("header_parse", lambda case: not case["ok"]))
def test_every_refused_header_is_one_line(case: dict[str, Any], tmp_path: Path) -> None:
    refuse("h1", case["input"], tmp_path)


def refuse(key: str, value: str, folder: Path) -> None:
    file = folder / "profile.toml"
    # A JSON string of ASCII is a TOML string, but for surrogate pairs and DEL.
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    file.write_text(ClientText(awg=f"{key} = {text}").as_upstream(), encoding="utf-8")

    with pytest.raises(ProfileError) as info:
        load_profile(file, environ={})

    path, _, fix = problem_of(info.value)
    assert path == f"upstreams.edge.awg.{key}"
    assert fix


KEYS = ClientText().keys

# Points of small order: no secret can be shared with whoever claims to have one.
ZEROS, ONE = key_to_text(bytes(32)), key_to_text(bytes([1, *bytes(31)]))


@pytest.mark.parametrize(
    ("keys", "path", "message", "fix"),
    [
        (KEYS.replace("127.0.0.1:4443", "a:0"), "endpoint", "is not a port", "HOST:PORT"),
        (KEYS.replace("127.0.0.1", "https://a"), "endpoint", "is a URL", "write a:4443"),
        (KEYS.replace("127.0.0.1:4443", "a"), "endpoint", "has no port", 'such as "vpn.example.com:443"'),
        (KEYS.replace(SERVER_PUBLIC, "abc"), "public_key", "44 characters", "sproxy awg-keygen"),
        (KEYS.replace(SERVER_PUBLIC, CLIENT_PUBLIC), "public_key", "belongs to private_key", "the server's"),
        (KEYS.replace(SERVER_PUBLIC, ZEROS), "public_key", "a key that nobody can have", "awg pubkey"),
        (KEYS.replace(SERVER_PUBLIC, ONE), "public_key", "a key that nobody can have", "awg pubkey"),
        (KEYS + 'preshared_key = "abc"\n', "preshared_key", "44 characters", "copy the whole line"),
        (KEYS + "mtu = 1200\n", "mtu", "out of range", "1280 to 65535"),
        (KEYS + "keepalive_padding = 1\n", "keepalive_padding", "is a number", "true or false"),
        ("", "endpoint", "is missing", "write endpoint ="),
    ],
)
def test_bad_keys_of_a_session(keys: str, path: str, message: str, fix: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text(ClientText(keys=keys).as_upstream())

    with pytest.raises(ProfileError) as info:
        load_profile(file, environ={})

    problem = next(one for one in info.value.problems if one.path == f"upstreams.edge.{path}")
    assert message in problem.message
    assert fix in problem.fix


def test_a_small_path_mtu_bounds_s4(tmp_path: Path) -> None:
    file = tmp_path / "client.toml"
    for s4, host, good in ((20, "127.0.0.1", True), (21, "127.0.0.1", False), (1, "[::1]", False)):
        keys = KEYS.replace("127.0.0.1", host) + "mtu = 1280\n"
        file.write_text(str(ClientText(keys=keys, awg=f"s4 = {s4}")))
        if good:
            load_awg_client(file, environ={})
            continue
        with pytest.raises(ProfileError, match=r"awg\.s4: .* path MTU of 1280"):
            load_awg_client(file, environ={})


def test_what_works_but_was_hardly_meant_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text(
        'default = "edge"\n' + ClientText(awg=f"{SOUND}\njc = 1\njmin = 8\njmax = 80").as_upstream()
    )
    file.chmod(0o600)
    warnings: list[str] = []

    load_profile(file, environ={}, warn=warnings.append)

    (warning,) = warnings
    assert warning.startswith(f"{file}: upstreams.edge.awg.jc: 1 junk packets are not what is recommended")


IPV6_ROOM = "leaves QUIC less than it needs over IPv6, where vpn.example.com may lead"


@pytest.mark.parametrize(
    ("host", "mtu", "s4", "said"),
    [
        ("vpn.example.com", 1280, 1, f"1 {IPV6_ROOM}; leave s4 out, or an IPv4 address"),
        ("vpn.example.com", 1300, 21, f"21 {IPV6_ROOM}; write s4 = 20 or less, or an IPv4 address"),
        ("vpn.example.com", 1300, 20, ""),
        ("192.0.2.1", 1300, 21, ""),
        ("[2001:db8::1]", 1300, 20, ""),
    ],
)
def test_a_name_may_lead_to_ipv6_which_has_less_room(
    host: str, mtu: int, s4: int, said: str, tmp_path: Path
) -> None:
    client, server, profile = (tmp_path / f"{name}.toml" for name in ("client", "server", "profile"))
    sides = {"mtu": f"mtu = {mtu}\nkeepalive_padding = true\n", "awg": f"{SOUND}s4 = {s4}"}
    text = ClientText(keys=KEYS.replace("127.0.0.1", host) + sides["mtu"], awg=sides["awg"])
    client.write_text(str(text))
    profile.write_text(f'default = "edge"\n{text.as_upstream()}')
    server_keys = ServerText().keys.replace("127.0.0.1", host) + sides["mtu"]
    server.write_text(str(ServerText(keys=server_keys, awg=sides["awg"])))

    for file, load, prefix in (
        (client, load_awg_client, ""),
        (server, load_awg_server, ""),
        (profile, load_profile, "upstreams.edge."),
    ):
        file.chmod(0o600)
        warnings: list[str] = []
        load(file, environ={}, warn=warnings.append)

        assert warnings == ([f"{file}: {prefix}awg.s4: {said}"] if said else [])


PEER = f'[[peers]]\nname = "laptop"\npublic_key = "{CLIENT_PUBLIC}"\n'
OTHER = PEER.replace("laptop", "phone")


@pytest.mark.parametrize(
    ("peers", "path", "message"),
    [
        ("", "peers", "is missing"),
        (PEER + PEER.replace(CLIENT_PUBLIC, CLIENT_PUBLIC[:-2] + "A="), "peers[1].name", "stands twice"),
        (PEER + OTHER, "peers[1].public_key", "is that of peer 'laptop'"),
        (PEER.replace(CLIENT_PUBLIC, SERVER_PUBLIC), "peers[0].public_key", "is that of this server"),
        (PEER.replace(CLIENT_PUBLIC, "x" * 44), "peers[0].public_key", "in base64"),
        (PEER.replace(CLIENT_PUBLIC, ONE), "peers[0].public_key", "a key that nobody can have"),
        (PEER + 'preshared_key = "x"', "peers[0].preshared_key", "44 characters"),
        ('[[peers]]\nname = "laptop"', "peers[0].public_key", "is missing"),
        (PEER + 'key = "x"', "peers[0].key", "is not a key"),
    ],
)
def test_bad_peers(peers: str, path: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(str(ServerText(peers=peers)))

    with pytest.raises(ProfileError) as info:
        load_awg_server(file, environ={})

    where, what, _ = problem_of(info.value)
    assert where == path
    assert message in what


UNREADABLE = 'private_key = "env:NOT_SET"\n'


def paths_of(load: Callable[..., object], text: object, folder: Path) -> list[str]:
    file = folder / "file.toml"
    file.write_text(str(text))
    with pytest.raises(ProfileError) as info:
        load(file, environ={})
    return [problem.path for problem in info.value.problems]


def test_what_cannot_be_read_keeps_nothing_else_of_a_server_from_being_compared(tmp_path: Path) -> None:
    text = ServerText(
        keys=f'{UNREADABLE}mtu = "a"\n',
        awg='h1 = 10\nh2 = "10-20"\njmin = 70\njmax = 40\ns4 = 9999',
        peers=PEER + PEER.replace(CLIENT_PUBLIC, ONE) + OTHER + '[[peers]]\nname = "laptop"\n',
        more='[policy]\nallow = ["10.0.0.0/8"]\ndeny = ["10.0.0.0/8"]\n',
    )

    assert paths_of(load_awg_server, text, tmp_path) == [
        "private_key",
        "mtu",
        "peers[3].public_key",
        "peers[1].public_key",
        "peers[1].name",
        "peers[2].public_key",
        "peers[3].name",
        "policy.deny[0]",
        "awg.jmax",
        "awg.h2",
    ]


def test_what_cannot_be_read_keeps_nothing_else_of_a_client_from_being_compared(tmp_path: Path) -> None:
    text = ClientText(
        keys=UNREADABLE + f'endpoint = "a"\npublic_key = "{ONE}"\npreshared_key = "b"\n',
        auth='[auth]\nuser = "a:b"\npass = "env:NOT_SET"\n',
        awg="jc = 200\njmax = 80\ns4 = 9999",
        more='[admin]\nlisten = "127.0.0.1:0"\n',
    )

    assert paths_of(load_awg_client, text, tmp_path) == [
        "endpoint",
        "private_key",
        "auth.pass",
        "auth.user",
        "public_key",
        "preshared_key",
        "awg.jc",
        "awg.s4",
    ]


@pytest.mark.parametrize(
    ("awg", "faulty"),
    [
        # What a faulty value would have been is not guessed: no jmax is missing, no h1 is the usual one.
        ('jc = 4\njmin = 70\njmax = "a"\ns1 = 65500', ["jmax", "s1"]),
        ('h1 = "a"\nh2 = 1\njc = 200', ["h1", "jc"]),
        ("jc = 4\njmin = 70\njmx = 80", ["jmx"]),
        ('s4 = "a"\njmin = 9', ["s4", "jmax"]),
    ],
)
def test_parameters_are_compared_as_far_as_they_can_be_read(
    awg: str, faulty: list[str], tmp_path: Path
) -> None:
    for load, text in ((load_awg_server, ServerText(awg=awg)), (load_awg_client, ClientText(awg=awg))):
        assert paths_of(load, text, tmp_path) == [f"awg.{key}" for key in faulty]


def test_networks_that_cannot_be_read_are_not_compared(tmp_path: Path) -> None:
    more = '[policy]\nallow = ["a"]\ndeny = ["0.0.0.0/0"]\n'

    assert paths_of(load_awg_server, ServerText(more=more), tmp_path) == ["policy.allow[0]"]


def test_no_problem_shows_a_key(tmp_path: Path) -> None:
    secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQ"
    file = tmp_path / "server.toml"
    file.write_text(f'private_key = "{secret}"\n[[peers]]\nname = "a"\npublic_key = "{secret}"\n')

    with pytest.raises(ProfileError) as info:
        load_awg_server(file, environ={})

    assert len(info.value.problems) == 2
    assert secret not in str(info.value)
    assert SERVER_KEY.hex() not in str(info.value)


def test_what_is_allowed_is_not_denied_in_the_same_words(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        str(ServerText(more='[policy]\nallow = ["10.0.0.0/8"]\ndeny = ["1.2.3.4", "10.0.0.0/8"]\n'))
    )

    with pytest.raises(ProfileError) as info:
        load_awg_server(file, environ={})

    where, what, fix = problem_of(info.value)
    assert where == "policy.deny[1]"
    assert what == "10.0.0.0/8 stands in policy.allow, too"
    assert fix == "take it out of one of them"


def test_what_the_default_denies_can_be_allowed(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(str(ServerText(more='[policy]\nallow = ["10.0.0.0/8"]\n')))

    assert load_awg_server(file, environ={}).policy.deny == INWARD
