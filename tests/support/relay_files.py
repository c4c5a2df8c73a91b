"""Files of sproxy relay-server and relay-agent, as text, and what they name."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.relay_tokens import make_certificate

SIGNING = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNING_PEM = SIGNING.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
VERIFYING_PEM = SIGNING.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(kid: str = "one", key: Ed25519PrivateKey = SIGNING) -> dict[str, str]:
    """Return the public half of *key*."""
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": encode(key.public_key().public_bytes_raw()),
        "kid": kid,
    }


JWKS = json.dumps({"keys": [jwk()]})


def claims_token(**claims: object) -> str:
    """Return what looks like a token that says *claims*, though nobody has signed it."""
    return f"{encode(b'{}')}.{encode(json.dumps(claims).encode())}.{encode(b'signature')}"


# Until the year 2100.
TOKEN = claims_token(sub="alice", exp=4_102_444_800, scope="agent client")

ENDPOINTS = 'endpoints = [{ url = "wss://relay.example" }]\n'


@attrs.frozen
class RelayText:
    """A ``relay.toml``, whose parts tests replace."""

    top: str = 'listen = "127.0.0.1:3001"\n'
    jwt: str = '[jwt]\nkeys = "file:jwks.json"\n'
    more: str = ""

    def __str__(self) -> str:
        return f"{self.top}{self.jwt}{self.more}\n"


@attrs.frozen
class AgentText:
    """An ``agent.toml``, whose parts tests replace."""

    top: str = f'name = "nas"\ntoken = "{TOKEN}"\n'
    endpoints: str = ENDPOINTS
    services: str = '[services]\nssh = "127.0.0.1:22"\n'
    more: str = ""

    def __str__(self) -> str:
        return f"{self.top}{self.endpoints}{self.services}{self.more}\n"


@attrs.frozen
class RelayUpstreamText:
    """The tables of a profile's upstream."""

    keys: str = f'token = "{TOKEN}"\n'
    endpoints: str = ENDPOINTS
    ssh: str = ""

    def __str__(self) -> str:
        return (
            f'[upstreams.home]\nkind = "relay"\n{self.keys}{self.endpoints}[upstreams.home.ssh]\n{self.ssh}\n'
        )


def write_file(folder: Path, text: object, name: str = "file.toml") -> Path:
    """Write *text*, and the keys that it may name, for its owner only."""
    (folder / "jwks.json").write_text(JWKS)
    file = folder / name
    file.write_text(str(text))
    file.chmod(0o600)
    return file


def write_what_files_name(folder: Path) -> None:
    """Write to *folder* what the files of examples name: certificates, keys, tokens."""
    certificate, _ = make_certificate().write(folder)
    (folder / "ca.pem").write_text(certificate.read_text())
    (folder / "jwks.json").write_text(JWKS)
    (folder / "revoked.txt").touch()
    for name in ("token", "agent-token", "client-token", "alice.key"):
        (folder / name).write_text(TOKEN)
