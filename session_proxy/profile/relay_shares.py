"""What each worker of a relay server is to run: the file, but for what each has for itself, and its share of bounds."""

from __future__ import annotations

from pathlib import Path

import attrs

from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_model import MIB, RelayCluster, RelayServer
from session_proxy.target import Target

MOST_PORT = 65535


def share_of(server: RelayServer, worker: int) -> RelayServer:
    """Return what *worker*, counted from 1, of *server* is to run.

    What the process that has started it does for all of them is not in it: the admin listener. The users' limits are
    those of all, since workers agree about them.
    """
    limits, audit, cluster = server.limits, server.audit, server.cluster
    return attrs.evolve(
        server,
        name=worker_name(server.name, worker),
        admin=None,
        audit=None if audit is None else attrs.evolve(audit, file=audit_file(audit.file, worker)),
        cluster=None if cluster is None else cluster_of(cluster, worker),
        limits=attrs.evolve(
            limits,
            connections=-(-limits.connections // server.workers),
            memory=max(limits.memory // server.workers, MIB),
        ),
    )


def worker_name(name: str, worker: int) -> str:
    """Return what *worker* of the server *name* is called."""
    return f"{name}.worker-{worker}"


def audit_file(file: Path, worker: int) -> Path:
    """Return where *worker* continues the audit log *file*: a chain of entries has one writer."""
    return file.with_name(f"{file.stem}.worker-{worker}{file.suffix}")


def cluster_of(cluster: RelayCluster, worker: int) -> RelayCluster:
    """Return where *worker* takes links of other servers: at the ports from that of *cluster* on.

    Raises:
      ValueError: there is no such port.

    """
    listen, address = cluster.listen, cluster.address
    return attrs.evolve(
        cluster,
        listen=ListenAddress(listen.host, _port(listen.port, worker) if listen.port else 0),
        address=None if address is None else Target(address.host, _port(address.port, worker)),
    )


def _port(first: int, worker: int) -> int:
    port = first + worker - 1
    if port > MOST_PORT:
        raise ValueError(f"the ports from {first} on are too few")
    return port
