"""Every kind of bad ``relay.toml`` and ``agent.toml``: where the problem is said to be, and what to write instead."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from session_proxy.errors import ProfileError
from session_proxy.profile import relay_keys
from session_proxy.profile.relay_loading import load_relay_agent, load_relay_server
from tests.support.relay_files import (
    JWKS,
    SIGNING_PEM,
    VERIFYING_PEM,
    AgentText,
    RelayText,
    claims_token,
    jwk,
    write_file,
)
from tests.support.relay_tokens import make_certificate


@attrs.frozen
class Bad:
    """A file, the *path* of its one problem, and parts of the *message* and the *fix*."""

    text: RelayText | AgentText
    path: str
    message: str
    fix: str


CLUSTER = '[cluster]\ncertificate = "cert.pem"\nkey = "key.pem"\nca = "cert.pem"\n'


def top(text: str) -> RelayText:
    return RelayText(top=f'listen = "127.0.0.1:3001"\n{text}\n')


def jwt(text: str) -> RelayText:
    return RelayText(jwt=f"[jwt]\n{text}\n")


def more(text: str) -> RelayText:
    return RelayText(more=text)


def cluster(text: str, *, key: str = "key.pem", ca: str = "cert.pem") -> RelayText:
    files = CLUSTER.replace("key.pem", key).replace('ca = "cert.pem"', f'ca = "{ca}"')
    return RelayText(more=f'[store]\nredis = "redis://a"\n{files}{text}\n')


def workers(count: int, text: str) -> RelayText:
    """Return a server with workers and an admin listener, in a cluster."""
    listens = f'listen = "127.0.0.1:3001"\nworkers = {count}\nadmin = {{ listen = "127.0.0.1:5000" }}\n'
    return attrs.evolve(cluster(text), top=listens)


def secret(text: str) -> RelayText:
    return jwt(f"algorithms = 'HS256'\nkeys = '{text}'")


BAD = [
    # Who gets in.
    Bad(
        RelayText(top='listen = "0.0.0.0:3001"\n'),
        "tls",
        "is missing: 0.0.0.0:3001 would take tokens in the clear",
        'write [tls] with certificate and key, listen = "127.0.0.1:3001", or trusted_proxies',
    ),
    Bad(RelayText(top=""), "tls", "is missing: 0.0.0.0:3001", "write [tls]"),
    Bad(RelayText(top='listen = ["127.0.0.1:1", "[::]:1"]\n'), "tls", "[::]:1 would", "write [tls]"),
    Bad(RelayText(top="listen = 3001\n"), "listen", "a port without a host", '"127.0.0.1:3001"'),
    Bad(RelayText(top='listen = ["127.0.0.1:1", "127.0.0.1:1"]\n'), "listen[1]", "stands twice", "keep one"),
    Bad(more('[admin]\nlisten = "127.0.0.1:3001"'), "admin.listen", "taken by the relay itself", ":3002"),
    Bad(top('trusted_proxies = "lb"'), "trusted_proxies", "'lb' is no network", "10.0.0.0/8"),
    Bad(top('trusted_proxies = ["10.0.0.1/8"]'), "trusted_proxies[0]", "host bits", "10.0.0.0/8"),
    Bad(top("proxy_protocol = true"), "trusted_proxies", "nobody is believed", "proxy_protocol = false"),
    Bad(top('profile = "dev"'), "profile", "'dev' is no choice here", '"development"'),
    Bad(top("trusted_proxy = []"), "trusted_proxy", "is not a key", '"trusted_proxies"'),
    # Its certificate.
    Bad(more('[tls]\nkey = "key.pem"'), "tls.certificate", "is missing", "file:cert.pem"),
    Bad(more('[tls]\ncertificate = "cert.pem"'), "tls.key", "is missing", "file:key.pem"),
    Bad(
        more('[tls]\ncertificate = "none.pem"\nkey = "key.pem"'), "tls.certificate", "no such file", "in PEM"
    ),
    Bad(more('[tls]\ncertificate = "cert.pem"\nkey = "none.pem"'), "tls.key", "no such file", "in PEM"),
    Bad(
        more('[tls]\ncertificate = "cert.pem"\nkey = "other.pem"'),
        "tls.key",
        "does not belong to",
        "name the key of the certificate",
    ),
    Bad(more('[tls]\ncertificate = "key.pem"\nkey = "key.pem"'), "tls.certificate", "holds no certif", "PEM"),
    Bad(more('[tls]\ncertificate = "cert.pem"\nkey = "cert.pem"'), "tls.key", "holds no private key", "PEM"),
    Bad(
        more('[tls]\ncertificate = "cert.pem"\nkey = "locked.pem"'), "tls.key", "has a passphrase", "openssl"
    ),
    Bad(more('[tls]\ncertificate = "broken.pem"\nkey = "key.pem"'), "tls", "is broken", "whole"),
    Bad(more('[tls]\ncertificate = "command:cat c"\nkey = "key.pem"'), "tls.certificate", "a file", "PATH"),
    # Which tokens are believed.
    Bad(RelayText(jwt=""), "jwt", "is missing", 'write jwt = { keys = "file:jwks.json" }'),
    Bad(jwt(""), "jwt.keys", "is missing", 'write keys = "file:jwks.json"'),
    Bad(jwt('keys = "file:none.json"'), "jwt.keys", "cannot read", "name the file"),
    Bad(
        jwt('keys = "jwks.json"'),
        "jwt.keys",
        "neither a JWKS nor a key in PEM",
        'write "file:jwks.json", or algorithms = "HS256"',
    ),
    Bad(jwt('keys = "file:secret"'), "jwt.keys", "neither a JWKS nor", 'algorithms = "HS256"'),
    Bad(secret("hunter2"), "jwt.keys", "a secret of 7 bytes can be guessed: 32 are", "--algorithm HS256"),
    Bad(secret("x" * 31), "jwt.keys", "31 bytes", "sproxy relay-token --new-key"),
    Bad(
        jwt('algorithms = "RS256"\nkeys = "file:jwks.json"'),
        "jwt.keys",
        "there is no key for RS256",
        "--new-key FILE",
    ),
    Bad(jwt("keys = '{\"keys\": []}'"), "jwt.keys", "there is no key for EdDSA", "--new-key FILE"),
    Bad(jwt('keys = "file:broken.json"'), "jwt.keys", "this is no JWKS", "--new-key FILE"),
    Bad(jwt("keys = '{\"keys\": [1]}'"), "jwt.keys", "this is no JWKS", "--new-key FILE"),
    Bad(jwt('keys = "file:cert.pem"'), "jwt.keys", "this is no JWKS, PEM key", "--new-key FILE"),
    Bad(jwt('keys = "file:twice.json"'), "jwt.keys", "two keys have the kid 'a'", "sproxy relay-token"),
    Bad(
        jwt('algorithms = "none"\nkeys = "file:jwks.json"'),
        "jwt.algorithms",
        "'none' is no choice",
        '"EdDSA", "RS256" or "HS256"',
    ),
    Bad(
        jwt('algorithms = ["EdDSA", "ES256"]\nkeys = "file:jwks.json"'),
        "jwt.algorithms[1]",
        "'ES256' is no choice here",
        'did you mean "RS256"?',
    ),
    Bad(jwt('algorithms = []\nkeys = "file:jwks.json"'), "jwt.algorithms", "empty list", "at least one"),
    Bad(
        jwt('keys = "file:jwks.json"\nrevoked = "file:none.txt"'),
        "jwt.revoked",
        "there is no file",
        "make it, empty as it may be",
    ),
    Bad(jwt('keys = "file:jwks.json"\nrevoked = "binary"'), "jwt.revoked", "is not text", "id of a token"),
    Bad(jwt('keys = "file:jwks.json"\nrevoked = "."'), "jwt.revoked", "is a directory", "readable"),
    # What it keeps.
    Bad(more('[store]\nredis = "127.0.0.1:6379"'), "store.redis", "no address of a Redis", "redis://"),
    Bad(more('[store]\nredis = "http://:hunter2@a"'), "store.redis", "no address of", "redis://"),
    Bad(more('[store]\nredis = "redis://[hunter2"'), "store.redis", "no address of", "redis://"),
    Bad(more('[store]\nredis = "redis://"'), "store.redis", "no address of", "redis://"),
    # Its like.
    Bad(
        more('[store]\nredis = "redis://a"'),
        "cluster",
        "is missing: servers that share",
        "write [cluster] with",
    ),
    Bad(
        RelayText(more=f'{CLUSTER}listen = "127.0.0.1:3003"'),
        "cluster",
        "no use without",
        "[store] with redis",
    ),
    Bad(
        cluster('listen = "0.0.0.0:3003"'),
        "cluster.address",
        "nobody can dial 0.0.0.0:3003",
        "the others dial",
    ),
    Bad(cluster('listen = "127.0.0.1:3001"'), "cluster.listen", "where clients come in", "another port"),
    Bad(top("workers = 2"), "workers", "2 processes have nothing to agree in", "[store] with redis"),
    Bad(top("workers = 65"), "workers", "out of", "1 to 64"),
    Bad(workers(2, 'listen = "127.0.0.1:3000"'), "cluster.listen", "where clients come in", "another port"),
    Bad(workers(3, 'listen = "127.0.0.1:4998"'), "cluster.listen", "the admin listener", "the 3 workers"),
    Bad(workers(4, 'listen = "a:65533"'), "cluster", "from 65533 on are too few", "smaller ones"),
    Bad(workers(4, 'listen = "a:1"\naddress = "b:65533"'), "cluster", "from 65533 on", "smaller ones"),
    Bad(cluster(""), "cluster.listen", "is missing", 'write listen = "10.0.0.5:3003"'),
    Bad(cluster('listen = "a:1"', ca="none.pem"), "cluster.ca", "cannot read", "certificates in PEM"),
    Bad(cluster('listen = "a:1"', key="cert.pem"), "cluster.key", "holds no private key", "the key's file"),
    Bad(
        more('[tracing]\nendpoint = "127.0.0.1:4318"'), "tracing.endpoint", "no URL", "http://127.0.0.1:4318"
    ),
    Bad(more('[tracing]\nendpoint = "http://[a"'), "tracing.endpoint", "no URL", "http://127.0.0.1:4318"),
    Bad(more("[tracing]"), "tracing.endpoint", "is missing", 'endpoint = "http://127.0.0.1:4318"'),
    Bad(more("[audit]"), "audit.file", "is missing", 'write file = "audit.jsonl"'),
    Bad(more('[audit]\nfile = "none/audit.jsonl"'), "audit.file", "there is no folder", "make it"),
    Bad(more(f'[audit]\nfile = "{"a/" * 5000}"'), "audit.file", "there is no folder", "make it"),
    Bad(more('[audit]\nfile = "."'), "audit.file", "is a folder", 'audit.jsonl"'),
    # What users may.
    Bad(more('[tiers."a b"]'), 'tiers."a b"', "'a b' cannot be used", "letters, digits"),
    Bad(more("[tiers]\nfree = 1"), "tiers.free", "is a number", "keys requests_per_minute"),
    Bad(more("tiers = 1"), "jwt.tiers", "is not a key", "the keys here are"),
    Bad(more('[tiers.free]\nmodes = ["ssh"]'), "tiers.free.modes[0]", "'ssh' is no choice", '"relay-ssh"'),
    Bad(more("[tiers.free]\nmodes = []"), "tiers.free.modes", "is an empty list", "at least one"),
    Bad(more('[tiers.free]\nfeatures = "all"'), "tiers.free.features", "'all'", '"agent-pools"'),
    Bad(more("[tiers.free]\nssh_connections = 4"), "tiers.free.ssh_connections", "out of", "1 to 3"),
    Bad(more("[tiers.free]\nrequests = 4"), "tiers.free.requests", "not a key", "requests_per_minute"),
    # For whom the relay logs in.
    Bad(more("[users.alice]"), "users.alice.ssh", "is missing", 'key = "file:alice.key"'),
    Bad(more('[users.alice.ssh]\nkey = "k"'), "users.alice.ssh.user", "is missing", '"me"'),
    Bad(more('[users.alice.ssh]\nuser = "me"'), "users.alice.ssh.key", "is missing", '"file:alice.key"'),
    Bad(more('[users.alice.ssh]\nuser = "m e"\nkey = "k"'), "users.alice.ssh.user", "'m e'", "name alone"),
    Bad(
        more('[users.alice.ssh]\nuser = "me"\nkey = "instance-connect"'),
        "users.alice.ssh.key",
        "needs an EC2 instance",
        "write a key file",
    ),
    Bad(
        more('[users.alice.ssh]\nuser = "me"\nkey = "k"\nport = 22'),
        "users.alice.ssh.port",
        "does nothing here",
        "[services]",
    ),
    Bad(more('[users.""]\nssh.user = "a"\nssh.key = "b"'), 'users.""', "is no user's", "as tokens do"),
    # Bounds.
    Bad(more("[limits]\nheartbeat = 60"), "limits.silence", "40 leaves no time", "write more than 60"),
    Bad(more("[limits]\nsilence = 30"), "limits.silence", "30 leaves no time", "a smaller heartbeat"),
    Bad(more("[limits]\nheartbeat = 0\nsilence = 1"), "limits.heartbeat", "0 is out of range", "from 0.1"),
    Bad(more("[limits]\nmemory = 1"), "limits.memory", "1 is out of range", "1048576"),
    Bad(more("[pool]\nwarm = 4"), "pool.warm", "4 is out of range", "from 0 to 3"),
    # Agents.
    Bad(AgentText(top='token = "a.e30.c"\n'), "name", "is missing", 'write name = "nas"'),
    Bad(AgentText(top='name = "a b"\ntoken = "a.e30.c"\n'), "name", "'a b' cannot be used", "letters"),
    Bad(AgentText(top='name = "nas"\n'), "token", "is missing", 'token = "file:token"'),
    Bad(AgentText(top='name = "nas"\ntoken = "hunter2"\n'), "token", "is no JWT", "sproxy relay-token"),
    Bad(AgentText(endpoints=""), "endpoints", "is missing", 'url = "wss://relay.example.com"'),
    Bad(
        AgentText(endpoints='endpoints = { url = "ws://relay.example" }\n'),
        "endpoints.url",
        "for everybody to read",
        'write "wss://relay.example"',
    ),
    Bad(AgentText(services=""), "services", "there is nothing to reach", 'ssh = "127.0.0.1:22"'),
    Bad(AgentText(services="[services]\n"), "services", "nothing to reach", 'ssh = "127.0.0.1:22"'),
    Bad(AgentText(services='services = "ssh"\n'), "services", "is text", "write [services] with lines"),
    Bad(AgentText(services='[services]\nssh = "localhost"\n'), "services.ssh", "has no port", "HOST:PORT"),
    Bad(AgentText(services="[services]\nssh = 22\n"), "services.ssh", "is a number", "in quotes"),
    Bad(AgentText(services='[services]\n"s h" = "a:1"\n'), 'services."s h"', "'s h' cannot be", "letters"),
    Bad(AgentText(more="[limits]\nsilence = 1"), "limits.silence", "1 leaves no time", "more than 30"),
    Bad(AgentText(more="[limits]\nstream = 1"), "limits.stream", "is not a key", '"streams"'),
]


def load(folder: Path, text: RelayText | AgentText, warnings: list[str] | None = None) -> None:
    noted = [] if warnings is None else warnings
    certificate = make_certificate()
    certificate.write(folder)
    (folder / "other.pem").write_text(make_certificate().key)
    key = load_pem_private_key(certificate.key.encode(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"-x"))
    (folder / "locked.pem").write_bytes(locked)
    (folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    (folder / "broken.json").write_text('{"keys": 5}')
    (folder / "twice.json").write_text(json.dumps({"keys": [jwk("a"), jwk("a")]}))
    (folder / "secret").write_text("hunter2" * 10)
    (folder / "binary").write_bytes(b"\xff\xfe")
    file = write_file(folder, text)
    if isinstance(text, RelayText):
        load_relay_server(file, environ={}, warn=noted.append)
    else:
        load_relay_agent(file, environ={}, warn=noted.append)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.path} {bad.message}")
def test_bad_files(bad: Bad, tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as info:
        load(tmp_path, bad.text)

    (problem,) = info.value.problems
    assert problem.path == bad.path
    assert bad.message in problem.message
    assert bad.fix in problem.fix
    assert "hunter2" not in str(info.value)
    assert "\n" not in str(info.value)


def test_every_problem_is_reported_in_one_run(tmp_path: Path) -> None:
    text = RelayText(
        top='listn = 1\nprofile = "prod"\n',
        jwt='[jwt]\nkeys = "hunter2"\nrevoked = "none"\n',
        more=(
            '[tls]\nkey = "none.pem"\n[users.bob]\n[users.alice.ssh]\nuser = "a"\n'
            "[limits]\nsilence = 1\n[tiers.x]\ny = 1\n"
        ),
    )

    with pytest.raises(ProfileError) as info:
        load(tmp_path, text)

    assert sorted(problem.path for problem in info.value.problems) == [
        "jwt.keys",
        "jwt.revoked",
        "limits.silence",
        "listn",
        "profile",
        "tiers.x.y",
        "tls.certificate",
        "tls.key",
        "users.alice.ssh.key",
        "users.bob.ssh",
    ]


@pytest.mark.parametrize(
    "text",
    [
        RelayText(top='listen = "0.0.0.0:3001"\ntrusted_proxies = "10.0.0.0/8"\n'),
        RelayText(
            top='listen = "0.0.0.0:3001"\n',
            more='[tls]\ncertificate = "cert.pem"\nkey = "file:key.pem"\n',
        ),
        jwt(f"keys = '''{VERIFYING_PEM}'''"),
        jwt(f"keys = '{JWKS}'"),
        secret("x" * 32),
        more(
            f'[store]\nredis = "rediss://user:pass@redis.example:6380/1"\n{CLUSTER}listen = "10.0.0.5:3003"'
        ),
        more(f'[store]\nredis = "unix:///run/redis.sock"\n{CLUSTER}listen = "[::]:1"\naddress = "b:3"'),
        attrs.evolve(
            top('workers = 64\nadmin = { listen = "127.0.0.1:5000" }'), more='[store]\nredis = "redis://a"'
        ),
        workers(64, 'listen = "127.0.0.1:3002"'),
        more('[users.direct.ssh]\nuser = "me"\nkey = "key.pem"\n[tiers.reject]'),
        AgentText(services='[services]\ndirect = "localhost:22"\n'),
    ],
)
def test_good_files(text: RelayText | AgentText, tmp_path: Path) -> None:
    warnings: list[str] = []

    load(tmp_path, text, warnings)

    assert not warnings


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            RelayText(top='listen = "0.0.0.0:3001"\ntrusted_proxies = ["10.0.0.0/8", "0.0.0.0/0"]\n'),
            "trusted_proxies[1]: 0.0.0.0/0 lets everybody say where",
        ),
        (jwt(f"keys = '''{SIGNING_PEM}'''"), "jwt.keys: holds a private key"),
        (
            jwt('algorithms = ["EdDSA", "RS256"]\nkeys = "file:jwks.json"'),
            'jwt.algorithms: there is no key for "RS256"',
        ),
        (top('metrics_token = "t"'), "metrics_token: the public port is open to this machine only"),
        (
            more(
                '[users.a.ssh]\nuser = "me"\nkey = "key.pem"\n[tiers.premium]\nmodes = "end-to-end"\n'
                '[tiers.enterprise]\nmodes = "end-to-end"\n'
            ),
            'users: no tier has the mode "relay-ssh"',
        ),
        (
            more('[users.a.ssh]\nuser = "me"\nkey = "file:none.key"\n'),
            "users.a.ssh.key: there is no file",
        ),
        (
            more(f'[users.a.ssh]\nuser = "me"\nkey = "{"a" * 5000}"\n'),
            "users.a.ssh.key: there is no file",
        ),
        (
            AgentText(top=f'name = "n"\ntoken = "{claims_token(exp=4e9, scope="client")}"\n'),
            'token: its scope does not hold "agent"',
        ),
        (
            AgentText(top=f'name = "n"\ntoken = "{claims_token(exp=1e9, scope="agent")}"\n'),
            "token: has expired (2001-09-09 01:46 UTC)",
        ),
    ],
)
def test_what_works_but_was_hardly_meant(text: RelayText | AgentText, warning: str, tmp_path: Path) -> None:
    warnings: list[str] = []

    load(tmp_path, text, warnings)

    (line,) = warnings
    assert warning in line


def test_public_keys_may_be_read_by_everybody(tmp_path: Path) -> None:
    file = write_file(tmp_path, jwt(f"keys = '{JWKS}'"))
    file.chmod(0o644)
    warnings: list[str] = []

    load_relay_server(file, environ={}, warn=warnings.append)

    assert not warnings


def test_a_revocation_list_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_keys, "MAX_REVOKED", 1)

    with pytest.raises(
        ProfileError, match=r"jwt\.revoked: .*/binary is larger than 1 bytes; take tokens out"
    ):
        load(tmp_path, jwt('keys = "file:jwks.json"\nrevoked = "binary"'))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_that_are_closed_to_us(tmp_path: Path) -> None:
    (tmp_path / "revoked").touch(mode=0o000)

    with pytest.raises(ProfileError, match=r"jwt\.revoked: cannot read .*: permission denied"):
        load(tmp_path, jwt('keys = "file:jwks.json"\nrevoked = "revoked"'))
