"""What has to hold of the ways to relay servers, which profiles and agents have, and of an upstream of kind relay."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from session_proxy.errors import InvalidTargetError
from session_proxy.profile.addresses import is_loopback
from session_proxy.profile.model import (
    INSTANCE_CONNECT,
    ListenAddress,
    RelayEndpoint,
    RelayUpstream,
    Ssh,
)
from session_proxy.profile.secret import Secret
from session_proxy.profile.structuring import Structurer
from session_proxy.profile.values import describe_name_fault
from session_proxy.target import canonical_host
from tunnel_relay.protocol.unverified import read_token

EXAMPLE = '"wss://relay.example.com"'

DEFAULT_PORTS = {"ws": 80, "wss": 443}
DEFAULT_PATH = "/api/tunnel/connect"

# What http:// was meant to be.
MEANT = {"http": "ws", "https": "wss"}


class Dialing(Protocol):
    """What both an upstream and an agent say of the relay servers."""

    @property
    def endpoints(self) -> tuple[RelayEndpoint, ...]:
        """Where they are."""
        ...

    @property
    def token(self) -> Secret:
        """Who we are."""
        ...

    @property
    def ca(self) -> Path | None:
        """Who else is believed about them."""
        ...


def check_dialing(prefix: str, dialing: Dialing, notes: Structurer) -> None:
    """Note every problem with the relay servers and the token; *prefix* stands before the keys: ``upstreams.a.``."""
    _check_endpoints(f"{prefix}endpoints", dialing.endpoints, notes)
    if notes.sound(f"{prefix}token") and read_token(dialing.token.reveal().strip()) is None:
        notes.note(f"{prefix}token", "is no JWT", 'copy the whole line that "sproxy relay-token" prints')
    if dialing.ca is not None and notes.sound(f"{prefix}ca"):
        check_authorities(f"{prefix}ca", dialing.ca, notes)


def dialing_warnings(prefix: str, dialing: Dialing, scope: str, now: float) -> Iterator[str]:
    """Yield one line for each thing about the token that relay servers will not like; *scope* is what it is for."""
    said = read_token(dialing.token.reveal().strip())
    if said is None:
        return
    if said.expires is not None and said.expires <= now:
        when = dt.datetime.fromtimestamp(max(said.expires, 0), dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        yield f'{prefix}token: has expired ({when}); issue a new one with "sproxy relay-token"'
    if scope not in said.scopes:
        yield f'{prefix}token: its scope does not hold "{scope}"; issue one with --scope {scope}'


def check_relay_upstream(path: str, upstream: RelayUpstream, notes: Structurer) -> None:
    """Note every problem between the values of *upstream*, which stands at *path*, but for its SSH login."""
    check_dialing(f"{path}.", upstream, notes)
    for key, name in (("agent", upstream.agent), ("service", upstream.service)):
        if name is not None and notes.sound(f"{path}.{key}"):
            check_name_of(f"{path}.{key}", name, notes)
    check_ssh_through_relay(f"{path}.ssh", upstream.ssh, notes)


def relay_upstream_warnings(path: str, upstream: RelayUpstream, now: float) -> Iterator[str]:
    """Yield one line for each thing in *upstream*, which stands at *path*, that works but was probably not meant."""
    yield from dialing_warnings(f"{path}.", upstream, "client", now)
    if upstream.mode == "relay-ssh" and (upstream.ssh.user is not None or upstream.ssh.key is not None):
        yield f'{path}.ssh: does nothing with mode = "relay-ssh": the relay logs in, with a key of its own'


def check_ssh_through_relay(path: str, ssh: Ssh, notes: Structurer) -> None:
    """Note what an SSH login at *path* cannot have where the connection goes to an agent's service."""
    if ssh.key == INSTANCE_CONNECT:
        notes.note(
            f"{path}.key",
            f'"{INSTANCE_CONNECT}" needs an EC2 instance, which an agent is not',
            "write a key file, or remove it",
        )
    port = f"{path}.port"
    if port in notes.given and notes.sound(port):
        fix = "remove it, and write the port into the agent's [services]"
        notes.note(port, "does nothing here: the agent's service has a port", fix)


def check_name_of(path: str, name: str, notes: Structurer) -> None:
    """Note where no agent or service can be called *name*."""
    if fault := describe_name_fault(name):
        notes.note(path, *fault)


def _check_endpoints(path: str, endpoints: Sequence[RelayEndpoint], notes: Structurer) -> None:
    if not endpoints and notes.sound(path):
        notes.note(path, "is an empty list", f"write endpoints = [{{ url = {EXAMPLE} }}]")
    seen: dict[tuple[str, str, int, str], str] = {}
    for position, endpoint in enumerate(endpoints):
        here = f"{notes.item(path, position)}.url"
        if not notes.sound(here):
            continue
        fault, address = _read_url(endpoint.url)
        if fault is not None:
            notes.note(here, *fault)
        elif address is not None and address in seen:
            same = "stands twice" if seen[address] == endpoint.url else f"is the same as {seen[address]!r}"
            notes.note(here, f"{endpoint.url!r} {same}", "keep one of them")
        elif address is not None:
            seen[address] = endpoint.url


def _read_url(url: str) -> tuple[tuple[str, str] | None, tuple[str, str, int, str] | None]:
    """Return what is wrong with *url* and what to do, or else where it leads."""
    example = f"write it like {EXAMPLE}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ("is no URL", example), None
    if parts.scheme in MEANT:
        meant = url.replace(parts.scheme, MEANT[parts.scheme], 1)
        return (f"{parts.scheme}:// is no WebSocket's", f'write "{_without_credentials(parts, meant)}"'), None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return ("is no address of a WebSocket", example), None
    if parts.username is not None or parts.password is not None:
        return ("holds credentials", "remove what stands before the @: the token says who we are"), None
    if parts.query or parts.fragment:
        return ("holds a query or a fragment", "remove what begins with ? or #"), None
    if not url.isascii() or any(character.isspace() or not character.isprintable() for character in url):
        return ("holds characters that no URL can", example), None
    try:
        host = canonical_host(parts.hostname)
    except InvalidTargetError as exc:
        return (exc.reason, exc.fix or example), None
    if port == 0:
        return ("names the port 0", "write the port where the server listens"), None
    port = DEFAULT_PORTS[parts.scheme] if port is None else port
    if parts.scheme == "ws" and not is_loopback(ListenAddress(host, port)):
        fix = f'write "{url.replace("ws", "wss", 1)}"'
        return ("would send the token, and all else, for everybody to read", fix), None
    path = parts.path if parts.path not in ("", "/") else DEFAULT_PATH
    return None, (parts.scheme, host, port, path)


def _without_credentials(parts: SplitResult, url: str) -> str:
    return url.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1) if "@" in parts.netloc else url


def check_authorities(path: str, file: Path, notes: Structurer) -> None:
    """Note what is wrong with a *file* of certificates that are to be believed, named at *path*."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        notes.note(path, f"{file} holds no certificate", "name a file with certificates in PEM")
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        notes.note(path, f"cannot read {file}: {reason}", "name a file with certificates in PEM")
