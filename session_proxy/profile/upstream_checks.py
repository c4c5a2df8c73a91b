"""What has to hold between the values of one upstream."""

from __future__ import annotations

import re

from session_proxy.profile.awg_checks import check_session
from session_proxy.profile.model import (
    INSTANCE_CONNECT,
    AwgUpstream,
    Aws,
    RelayUpstream,
    Ssh,
    SshUpstream,
    SsmPortUpstream,
    SsmUpstream,
    Upstream,
)
from session_proxy.profile.relay_upstream_checks import check_relay_upstream
from session_proxy.profile.structuring import Structurer


def check_upstream(path: str, upstream: Upstream, notes: Structurer) -> None:
    """Note every problem between the values of *upstream*, which stands at *path*."""
    match upstream:
        case SsmUpstream():
            _check_instances(path, upstream.instances, notes)
            _check_aws(f"{path}.aws", upstream.aws, notes)
            check_ssh(f"{path}.ssh", upstream.ssh, notes)
        case SsmPortUpstream():
            _check_instances(path, upstream.instances, notes)
            _check_aws(f"{path}.aws", upstream.aws, notes)
        case SshUpstream():
            check_ssh(f"{path}.ssh", upstream.ssh, notes)
            if upstream.ssh.key == INSTANCE_CONNECT:
                notes.note(
                    f"{path}.ssh.key",
                    f'"{INSTANCE_CONNECT}" needs an EC2 instance, which an address does not name',
                    'write a key file, or use kind = "ssm"',
                )
            port = f"{path}.ssh.port"
            if port in notes.given and notes.sound(port) and upstream.ssh.port != upstream.address.port:
                notes.note(
                    port,
                    f"{upstream.ssh.port} contradicts address, which has the port {upstream.address.port}",
                    "remove it, and write the right port in address",
                )
        case AwgUpstream():
            check_session(f"{path}.", upstream, notes)
        case RelayUpstream():
            check_relay_upstream(path, upstream, notes)
            check_ssh(f"{path}.ssh", upstream.ssh, notes)


def _check_instances(path: str, instances: tuple[str, ...], notes: Structurer) -> None:
    for position, text in enumerate(instances):
        here = notes.item(f"{path}.instances", position)
        kind, colon, rest = text.partition(":")
        key, equals, value = rest.partition("=")
        if kind == "tag" and colon and not (key and equals and value):
            notes.note(here, f"{text!r} names no tag", 'write "tag:KEY=VALUE", such as "tag:Role=bastion"')
        elif kind == "name" and colon and not rest:
            notes.note(here, f"{text!r} names no instance", 'write "name:NAME", such as "name:web-1"')
        elif colon and kind not in ("tag", "name"):
            notes.note(here, f"{text!r} is no instance", 'write an id, "tag:KEY=VALUE" or "name:NAME"')
        elif not colon and re.search(r"[\s=*/]", text):
            notes.note(here, f"{text!r} is no instance id", 'write an id, "tag:KEY=VALUE" or "name:NAME"')
        if text in instances[:position]:
            notes.note(here, f"{text!r} stands twice", "keep one of them")


def _check_aws(path: str, aws: Aws, notes: Structurer) -> None:
    if not notes.sound(path):
        return
    inline = aws.access_key is not None or aws.secret_key is not None
    if inline and aws.access_key is None:
        notes.note_missing(f"{path}.access_key", '"env:AWS_KEY"', beside="secret_key")
    if inline and aws.secret_key is None:
        notes.note_missing(f"{path}.secret_key", '"env:AWS_SECRET"', beside="access_key")
    if inline and aws.profile is not None:
        notes.note(f"{path}.profile", "stands beside inline keys", "keep either profile or the keys")
    if inline and aws.profile is None and aws.region is None:
        notes.note_missing(f"{path}.region", '"eu-west-1", for example', beside="inline keys")
    if aws.session_token is not None and not inline:
        notes.note(
            f"{path}.session_token",
            "stands without the keys that it belongs to",
            "write access_key and secret_key too, or remove it",
        )
    if aws.region is not None and not re.fullmatch(r"[a-z0-9-]+", aws.region):
        notes.note(f"{path}.region", f"{aws.region!r} is no region", 'write it like "eu-west-1"')


def check_ssh(path: str, ssh: Ssh, notes: Structurer) -> None:
    """Note every problem between the values of an SSH login, which stands at *path*."""
    if ssh.key == INSTANCE_CONNECT and ssh.user is None and notes.sound(f"{path}.user"):
        notes.note_missing(f"{path}.user", '"ec2-user", for example', beside=f'key = "{INSTANCE_CONNECT}"')
    if ssh.passphrase is not None and notes.sound(f"{path}.key") and ssh.key in (None, INSTANCE_CONNECT):
        notes.note(f"{path}.passphrase", "stands without a key file", "write key too, or remove it")
    if ssh.user is not None and re.search(r"[\s@:/]", ssh.user):
        notes.note(
            f"{path}.user", f"{ssh.user!r} is no user name", 'write the name alone, such as "ec2-user"'
        )
