"""What ``sproxy status`` tells: the service as the shell sees it, and what is in it. JSON on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class ServiceStatus:
    """A running service. *uptime* is in seconds; *reasons* say by part why it is not ready."""

    name: str
    pid: int
    version: str
    state: str
    ready: bool
    reasons: dict[str, str]
    uptime: float
    listen: list[str]
    admin: list[str]


@attrs.frozen(kw_only=True)
class UpstreamStatus:
    """One way out; it has been in *state* for *seconds*, where that is known."""

    state: str
    reason: str
    seconds: float | None
    required: bool
    links: int
    details: dict[str, str]


@attrs.frozen(kw_only=True)
class TrafficStatus:
    """Client connections: open now, in total, and the payload of those that ended."""

    open: int
    total: int
    sent: int
    received: int


@attrs.frozen(kw_only=True)
class ProxyStatus:
    """What a proxy adds to `ServiceStatus`; *profile* is its file."""

    profile: str | None
    connections: TrafficStatus
    upstreams: dict[str, UpstreamStatus]


@attrs.frozen(kw_only=True)
class PeerStatus:
    """A client of an awg server; where it is, and for how many *seconds* its session is up, if it is."""

    up: bool
    address: str
    seconds: float | None
    streams: int
    sent: int
    received: int
    round_trip: float | None


@attrs.frozen(kw_only=True)
class AwgServerStatus:
    """What an awg server adds to `ServiceStatus`; *file* is its own."""

    file: str
    connections: TrafficStatus
    peers: dict[str, PeerStatus]
    rejections: dict[str, int]


@attrs.frozen(kw_only=True)
class WorkerStatus:
    """One of several processes of a relay server: a *worker* by its number; *pid* is None while it has no process."""

    worker: int
    pid: int | None
    state: str
    uptime: float
    restarts: int
    clients: int
    agents: int
    sessions: int
    audit: str


@attrs.frozen(kw_only=True)
class RelayServerStatus:
    """What a relay server adds to `ServiceStatus`: its *file*, who is linked, and the head of its audit log.

    The head is worth noting down where the log's writer cannot change it: it proves what came before. With several
    *workers*, each has one of its own, and who is linked is linked to one of them; without them, there are none here.
    """

    file: str
    clients: int
    agents: int
    sessions: int
    audit: str
    workers: list[WorkerStatus] = attrs.field(factory=list[WorkerStatus])


@attrs.frozen(kw_only=True)
class RelayAgentStatus:
    """What an agent adds to `ServiceStatus`: its *file* and name, and its way to the *relay*.

    It has been *linked*, or not, for so many *seconds*, with a *reason* where it is not.
    """

    file: str
    agent: str
    relay: str
    linked: bool
    reason: str
    seconds: float
    sessions: int
    streams: int
    services: dict[str, str]


def file_of(status: Mapping[str, object]) -> Path | None:
    """Return the file that a service runs, from its whole *status* on the wire; `None` where it runs none."""
    file = status.get("profile") or status.get("file")
    return Path(file) if isinstance(file, str) and file else None
