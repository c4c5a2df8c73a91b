"""What the lab leaves in its folder for other programs: the profile, the environment, ready.json, a key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from session_proxy.lab.targets import Targets
from session_proxy.profile.model import AwgUpstream, RelayUpstream
from session_proxy.profile.private_files import write_private

REGION = "eu-west-1"
# AWS's own example of an access key id; the lab takes any.
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
# What the port of ``sproxy awg-client`` asks for in the lab.
AWG_USER, AWG_PASSWORD = "lab", "lab"
SERVICES = ("SSM", "EC2", "EC2_INSTANCE_CONNECT", "STS")

Toml = dict[str, "Toml"] | list["Toml"] | str | int


@attrs.frozen(kw_only=True)
class Ways:
    """All that a front door has to know of a lab: where to listen, and how each transport gets in.

    *sshd* is ``HOST:PORT``; *key* may be absent, where the user's agent or default keys are to do. *awg* is the
    profile's way into the awg server; *client* is that of ``sproxy awg-client``, which is another peer there: a
    server has one session for each. *relay* is the way to the relay's agent, but for the login.
    """

    listen: str
    admin: str
    endpoint: str
    targets: Mapping[str, Targets]
    instances: Sequence[str]
    sshd: str
    user: str
    key: Path | None
    awg: AwgUpstream
    client_listen: str
    client: AwgUpstream
    relay: RelayUpstream


def write_key(path: Path) -> str:
    """Write a new Ed25519 key to *path*, for its owner only, and return its public line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = f"{public.decode()} lab"
    write_private(path, private.decode())
    write_private(path.with_suffix(".pub"), f"{line}\n")
    return line


def environ_of(ways: Ways) -> dict[str, str]:
    """Return the variables with which boto3, the AWS CLI and AWS's plugin talk to the lab."""
    endpoints = {f"AWS_ENDPOINT_URL_{service}": ways.endpoint for service in SERVICES}
    return {
        "AWS_ENDPOINT_URL": ways.endpoint,
        **endpoints,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def render_environ(environ: Mapping[str, str]) -> str:
    """Return *environ* as KEY=VALUE lines, which a shell and Docker read alike."""
    return "".join(f"{name}={value}\n" for name, value in environ.items())


def render_ready(ways: Ways) -> str:
    """Return the JSON by which programs find the lab."""
    ready = {
        "listen": ways.listen,
        "admin": ways.admin,
        "targets": {name: attrs.asdict(pair) for name, pair in ways.targets.items()},
        "ssm_endpoint": ways.endpoint,
        "instances": list(ways.instances),
    }
    return json.dumps(ready, indent=2) + "\n"


def render_profile(ways: Ways, directory: Path) -> str:
    """Return a profile.toml that reaches every target by the transport that it belongs to."""
    login: dict[str, Toml] = {"user": ways.user, "known_hosts": str(directory / "known_hosts")}
    if ways.key is not None:
        login["key"] = str(ways.key)
    port = int(ways.sshd.rpartition(":")[2])
    instances: list[Toml] = list(ways.instances)
    profile: dict[str, Toml] = {
        "listen": ways.listen,
        "default": "direct",
        "admin": {"listen": ways.admin},
        "upstreams": {
            "ssh": {"kind": "ssh", "address": ways.sshd, "ssh": {**login}},
            "ssm": {
                "kind": "ssm",
                "instances": [*instances],
                "aws": {"region": REGION},
                "ssh": {**login, "port": port},
            },
            "ssm-port": {"kind": "ssm-port", "instances": [*instances], "aws": {"region": REGION}},
            "awg": {"kind": "awg", **_awg(ways.awg)},
            "relay": {"kind": "relay", **_relay(ways.relay), "ssh": {**login}},
        },
        "routes": [_route(name, pair) for name, pair in ways.targets.items()],
    }
    return tomli_w.dumps(profile)


def render_client(ways: Ways) -> str:
    """Return a client.toml for ``sproxy awg-client``: a port of its own, straight into the awg server."""
    auth: dict[str, Toml] = {"user": AWG_USER, "pass": AWG_PASSWORD}
    return tomli_w.dumps({"listen": ways.client_listen, **_awg(ways.client), "auth": auth})


def _awg(upstream: AwgUpstream) -> dict[str, Toml]:
    """Return the keys that upstreams of kind awg and client.toml have in common."""
    keys: dict[str, Toml] = {
        "endpoint": str(upstream.endpoint),
        "private_key": upstream.private_key.reveal(),
        "public_key": upstream.public_key.reveal(),
        "keepalive_padding": upstream.keepalive_padding,
    }
    if upstream.preshared_key is not None:
        keys["preshared_key"] = upstream.preshared_key.reveal()
    return {**keys, "awg": {**upstream.awg.as_mapping()}}


def _relay(upstream: RelayUpstream) -> dict[str, Toml]:
    endpoints: list[Toml] = [{"url": endpoint.url} for endpoint in upstream.endpoints]
    return {"endpoints": endpoints, "token": upstream.token.reveal(), "agent": upstream.agent or ""}


def _route(upstream: str, pair: Targets) -> Toml:
    ports: list[Toml] = [int(address.rpartition(":")[2]) for address in (pair.http, pair.echo)]
    return {"match": ["127.0.0.1", "::1", "localhost"], "ports": ports, "upstream": upstream}
