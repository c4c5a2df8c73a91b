"""What has to hold between the values of ``relay.toml`` and of ``agent.toml``, once each is good by itself."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import attrs

from session_proxy.profile.addresses import WILDCARDS, collide, is_loopback
from session_proxy.profile.checks import check_listens
from session_proxy.profile.model import NO_SECRET
from session_proxy.profile.relay_keys import looks_like_keys, read_jwt_keys, read_revoked
from session_proxy.profile.relay_model import (
    RelayAgent,
    RelayCluster,
    RelayJwt,
    RelayServer,
    RelayStore,
    RelayTls,
    RelayTracing,
)
from session_proxy.profile.relay_shares import cluster_of
from session_proxy.profile.relay_upstream_checks import (
    check_authorities,
    check_dialing,
    check_name_of,
    check_ssh_through_relay,
    dialing_warnings,
)
from session_proxy.profile.shape import path_text
from session_proxy.profile.structuring import Structurer
from session_proxy.profile.upstream_checks import check_ssh

REDIS_SCHEMES = ("redis", "rediss", "unix")


class Timed(Protocol):
    """What either side says of signs of life."""

    @property
    def heartbeat(self) -> float:
        """Seconds between two of them."""
        ...

    @property
    def silence(self) -> float:
        """Seconds without any after which a connection is lost."""
        ...


def check_relay_server(server: RelayServer, notes: Structurer) -> None:
    """Note every problem between the values of *server*, which may have holes."""
    check_listens(server.listen, server.admin, notes, by="the relay")
    _check_open_doors(server, notes)
    if server.tls is not None:
        _check_pair("tls", server.tls, notes)
    if server.proxy_protocol and not server.trusted_proxies and notes.sound("trusted_proxies"):
        fix = 'write the balancers\' addresses, such as trusted_proxies = "10.0.0.0/8", or proxy_protocol = false'
        notes.note("trusted_proxies", "is empty, and so nobody is believed who speaks it", fix)
    _check_jwt(server.jwt, notes)
    _check_store(server.store, notes)
    _check_workers(server, notes)
    _check_cluster(server, notes)
    if server.audit is not None and notes.sound("audit.file"):
        _check_audit(server.audit.file, notes)
    if server.tracing is not None and notes.sound("tracing.endpoint"):
        _check_tracing(server.tracing, notes)
    for name, user in server.users.items():
        path = f"{path_text(['users', name])}.ssh"
        if not notes.sound(path):
            continue
        # The user who runs the relay, and that user's keys, are nobody's business there.
        if user.ssh.user is None:
            notes.note_missing(f"{path}.user", '"me", for example')
        if user.ssh.key is None:
            notes.note_missing(f"{path}.key", f'"file:{name}.key", for example')
        check_ssh(path, user.ssh, notes)
        check_ssh_through_relay(path, user.ssh, notes)
    _check_signs_of_life(server.limits, notes)


def relay_server_warnings(server: RelayServer) -> Iterator[str]:
    """Yield one line for each thing in *server* that works but was probably not meant."""
    for position, network in enumerate(server.trusted_proxies):
        if network.prefixlen == 0:
            yield f"trusted_proxies[{position}]: {network} lets everybody say where a connection comes from"
    if server.users and not any("relay-ssh" in tier.modes for tier in server.tiers.values()):
        yield 'users: no tier has the mode "relay-ssh", and so nobody logs in with their keys'
    if server.metrics_token is not None and all(map(is_loopback, server.listen)):
        yield "metrics_token: the public port is open to this machine only"
    yield from _key_warnings(server.jwt)


def check_relay_agent(agent: RelayAgent, notes: Structurer) -> None:
    """Note every problem between the values of *agent*, which may have holes."""
    if notes.sound("name"):
        check_name_of("name", agent.name, notes)
    check_dialing("", agent, notes)
    if not agent.services and notes.sound("services"):
        fix = 'write [services] with ssh = "127.0.0.1:22", for example'
        notes.note("services", "is missing: there is nothing to reach", fix)
    _check_signs_of_life(agent.limits, notes)


def relay_agent_warnings(agent: RelayAgent, now: float) -> Iterator[str]:
    """Yield one line for each thing in *agent* that works but was probably not meant."""
    yield from dialing_warnings("", agent, "agent", now)


def _check_open_doors(server: RelayServer, notes: Structurer) -> None:
    if server.tls is not None or server.trusted_proxies:
        return
    if not all(notes.sound(key) for key in ("tls", "trusted_proxies", "listen")):
        return
    public = next((address for address in server.listen if not is_loopback(address)), None)
    if public is not None:
        fix = (
            f'write [tls] with certificate and key, listen = "{attrs.evolve(public, host="127.0.0.1")}", '
            "or trusted_proxies with the balancer that has the certificate"
        )
        notes.note("tls", f"is missing: {public} would take tokens in the clear", fix)


def _check_pair(prefix: str, tls: RelayTls | RelayCluster, notes: Structurer) -> None:
    wrong = False
    for key, file in (("certificate", tls.certificate), ("key", tls.key)):
        path = f"{prefix}.{key}"
        if not notes.sound(path):
            wrong = True
        elif reason := _why_unreadable(file):
            fix = "make it readable for you" if file.exists() else f"name the {key}'s file, in PEM"
            notes.note(path, f"cannot read {file}: {reason}", fix)
            wrong = True
    if wrong:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a passphrase of our own nobody is asked for one.
        context.load_cert_chain(tls.certificate, tls.key, password="-")
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            notes.note(
                f"{prefix}.key",
                f"{tls.key} does not belong to {tls.certificate}",
                "name the key of the certificate",
            )
        elif b"PRIVATE KEY-----" not in tls.key.read_bytes():
            notes.note(f"{prefix}.key", f"{tls.key} holds no private key", "name the key's file, in PEM")
        elif b"BEGIN CERTIFICATE" not in tls.certificate.read_bytes():
            fix = "name the certificate's file, in PEM"
            notes.note(f"{prefix}.certificate", f"{tls.certificate} holds no certificate", fix)
        elif b"ENCRYPTED" in tls.key.read_bytes():
            fix = f"take it off: openssl pkey -in {tls.key} -out NEW"
            notes.note(f"{prefix}.key", f"{tls.key} has a passphrase", fix)
        else:
            notes.note(prefix, "the certificate or its key is broken", "name files in PEM that are whole")


def _check_jwt(jwt: RelayJwt, notes: Structurer) -> None:
    if notes.sound("jwt.keys") and notes.sound("jwt.algorithms") and jwt.keys != NO_SECRET:
        from tunnel_relay.protocol.tokens import TokenKeyError

        text = jwt.keys.reveal()
        try:
            keys = read_jwt_keys(text, jwt.algorithms)
        except TokenKeyError as exc:
            notes.note("jwt.keys", str(exc), _key_fix(jwt, text))
        else:
            if "jwt.keys" in notes.literals and not any(_is_private(key.material) for key in keys.values()):
                # Whoever reads it learns nothing.
                notes.literals.remove("jwt.keys")
    if jwt.revoked is not None and notes.sound("jwt.revoked"):
        try:
            read_revoked(jwt.revoked)
        except FileNotFoundError:
            fix = "make it, empty as it may be, or write another path"
            notes.note("jwt.revoked", f"there is no file {jwt.revoked}", fix)
        except OSError as exc:
            fix = "make it readable for you"
            notes.note("jwt.revoked", f"cannot read {jwt.revoked}: {(exc.strerror or str(exc)).lower()}", fix)
        except UnicodeDecodeError:
            notes.note("jwt.revoked", f"{jwt.revoked} is not text", "write the id of a token on each line")
        except ValueError as exc:
            notes.note("jwt.revoked", f"{jwt.revoked} {exc}", "take tokens out that have expired")


def _key_fix(jwt: RelayJwt, text: str) -> str:
    if not looks_like_keys(text):
        if "HS256" in jwt.algorithms:
            return 'make one with "sproxy relay-token --new-key FILE --algorithm HS256"'
        if jwt.keys.source == "literal" and "\n" not in text and len(text) < 256:
            return 'write "file:jwks.json", or algorithms = "HS256" where it is a secret'
        return 'write algorithms = "HS256" where it is a secret'
    return 'make a pair with "sproxy relay-token --new-key FILE", or name another algorithm'


def _key_warnings(jwt: RelayJwt) -> Iterator[str]:
    keys = read_jwt_keys(jwt.keys.reveal(), jwt.algorithms).values()
    if any(_is_private(key.material) and not isinstance(key.material, bytes) for key in keys):
        yield "jwt.keys: holds a private key; whoever takes over the relay can issue tokens: write the public one"
    for algorithm in jwt.algorithms:
        if all(key.algorithm != algorithm for key in keys):
            yield f'jwt.algorithms: there is no key for "{algorithm}"'


def _is_private(material: object) -> bool:
    return isinstance(material, bytes) or hasattr(material, "private_bytes")


def _check_store(store: RelayStore, notes: Structurer) -> None:
    if store.redis is None or not notes.sound("store.redis"):
        return
    url = store.redis.reveal()
    try:
        parts = urlsplit(url)
        good = parts.scheme in REDIS_SCHEMES and bool(parts.netloc or parts.path) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        # It may hold a password.
        notes.note("store.redis", "is no address of a Redis", 'write it like "redis://127.0.0.1:6379/0"')
    elif "@" not in url and "store.redis" in notes.literals:
        notes.literals.remove("store.redis")


def _check_tracing(tracing: RelayTracing, notes: Structurer) -> None:
    try:
        parts = urlsplit(tracing.endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        notes.note("tracing.endpoint", "is no URL", 'write it like "http://127.0.0.1:4318"')


def _check_workers(server: RelayServer, notes: Structurer) -> None:
    if server.workers == 1 or not notes.sound("workers"):
        return
    if server.store.redis is None and notes.sound("store") and notes.sound("store.redis"):
        fix = 'write [store] with redis = "redis://127.0.0.1:6379/0", for example, or workers = 1'
        notes.note("workers", f"{server.workers} processes have nothing to agree in", fix)


def _check_cluster(server: RelayServer, notes: Structurer) -> None:
    cluster = server.cluster
    if cluster is None:
        alone = server.store.redis is None or server.workers > 1
        if not alone and notes.sound("store.redis") and notes.sound("cluster") and notes.sound("workers"):
            notes.note(
                "cluster",
                "is missing: servers that share a store reach each other's agents through it",
                "write [cluster] with listen, certificate, key and ca",
            )
        return
    if server.store.redis is None and notes.sound("store"):
        notes.note("cluster", "is of no use without store.redis", "write [store] with redis, or take it out")
    _check_pair("cluster", cluster, notes)
    if notes.sound("cluster.ca"):
        check_authorities("cluster.ca", cluster.ca, notes)
    if not notes.sound("cluster.listen"):
        return
    if cluster.address is None and cluster.listen.host in WILDCARDS.values():
        fix = 'write the one that the others dial, such as address = "10.0.0.5:3003"'
        notes.note("cluster.address", f"is missing: nobody can dial {cluster.listen}", fix)
    try:
        listens = [cluster_of(cluster, worker).listen for worker in range(1, server.workers + 1)]
    except ValueError as exc:
        notes.note(
            "cluster", str(exc), f"each of the {server.workers} workers has its own: write smaller ones"
        )
        return
    if any(collide(listen, address) for listen in listens for address in server.listen):
        notes.note("cluster.listen", "is where clients come in", "write another port")
    elif server.admin is not None and any(collide(listen, server.admin.listen) for listen in listens[1:]):
        fix = f"write another port: each of the {server.workers} workers has its own, from this one on"
        notes.note("cluster.listen", "leads to where the admin listener is", fix)


def _check_audit(file: Path, notes: Structurer) -> None:
    # Unlike the methods of `Path`, these raise nothing where a name is too long.
    if os.path.isdir(file):  # noqa: PTH112
        notes.note("audit.file", f"{file} is a folder", f'write "{file / "audit.jsonl"}", for example')
    elif not os.path.isdir(file.parent):  # noqa: PTH112
        notes.note("audit.file", f"there is no folder {file.parent}", "make it, or write another path")


def _check_signs_of_life(timed: Timed, notes: Structurer) -> None:
    if not (notes.sound("limits.heartbeat") and notes.sound("limits.silence")):
        return
    if timed.silence <= timed.heartbeat:
        notes.note(
            "limits.silence",
            f"{timed.silence:g} leaves no time for an answer: signs of life come every {timed.heartbeat:g} s",
            f"write more than {timed.heartbeat:g}, or a smaller heartbeat",
        )


def _why_unreadable(file: Path) -> str | None:
    try:
        with file.open("rb"):
            return None
    except OSError as exc:
        return (exc.strerror or str(exc)).lower()
