"""``sproxy status``: how a running proxy is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from session_proxy.cli.options import JsonOption, NameOption, ProfileArgument

if TYPE_CHECKING:
    from session_proxy.supervision.status import (
        AwgServerStatus,
        PeerStatus,
        ProxyStatus,
        RelayAgentStatus,
        RelayServerStatus,
        ServiceStatus,
        TrafficStatus,
        WorkerStatus,
    )

WORKER_COLUMNS = ("WORKER", "STATE", "FOR", "PROCESS", "RESTARTS", "CLIENTS", "AGENTS", "SESSIONS", "AUDIT")
COLUMNS = ("UPSTREAM", "STATE", "FOR", "DETAIL")
PEER_COLUMNS = ("PEER", "STATE", "FOR", "ADDRESS", "STREAMS", "SENT", "RECEIVED", "ROUND TRIP")


def status(profile: ProfileArgument = None, name: NameOption = None, as_json: JsonOption = False) -> None:
    """Show how a running sproxy is.

    Its addresses, connections and upstreams; of an awg-server, its peers; of a relay-server, how many are connected; of
    a relay-agent, to which relay. It is the one that runs the file PROFILE, or has the name; without both, the only
    one. Exits with 0 if it answers, 69 if none does, 2 if several run and none was named.
    """
    from session_proxy.cli.asking import ask_running

    answer = ask_running(profile, name, "GET", "/status")
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo("\n".join(_render(answer)))


def _render(answer: Mapping[str, object]) -> list[str]:
    """Return the lines about whatever has answered: each kind of service has a key that no other has."""
    from session_proxy.cli.asking import structure
    from session_proxy.supervision.status import (
        AwgServerStatus,
        ProxyStatus,
        RelayAgentStatus,
        RelayServerStatus,
        ServiceStatus,
    )

    service = structure(answer, ServiceStatus)
    if "peers" in answer:
        return render_server(service, structure(answer, AwgServerStatus))
    if "agents" in answer:
        return render_relay_server(service, structure(answer, RelayServerStatus))
    if "services" in answer:
        return render_relay_agent(service, structure(answer, RelayAgentStatus))
    return render_status(service, structure(answer, ProxyStatus))


def render_status(service: ServiceStatus, proxy: ProxyStatus) -> list[str]:
    """Return the lines that a person reads about a proxy."""
    facts = {"connections": _traffic(proxy.connections)}
    head = _head(service, {"profile": proxy.profile or "none"}, facts)
    return [*head, "", *align([COLUMNS, *_upstream_rows(proxy)])]


def render_server(service: ServiceStatus, server: AwgServerStatus) -> list[str]:
    """Return the lines that a person reads about an awg server."""
    rejected = ", ".join(f"{number} {reason}" for reason, number in server.rejections.items() if number)
    rows = [_peer_row(name, peer) for name, peer in server.peers.items()]
    head = _head(service, {"file": server.file}, {"connections": _traffic(server.connections)})
    return [*head, f"  {'rejected':<11}  {rejected or 'none'}", "", *align([PEER_COLUMNS, *rows])]


def render_relay_server(service: ServiceStatus, server: RelayServerStatus) -> list[str]:
    """Return the lines that a person reads about a relay."""
    facts = {
        "connected": f"{server.clients} clients, {server.agents} agents",
        "sessions": str(server.sessions),
    }
    if not server.workers:
        # To note down: `sproxy relay-audit verify --noted` takes it.
        return _head(service, {"file": server.file}, {**facts, "audit": server.audit or "none"})
    rows = [_worker_row(worker) for worker in server.workers]
    return [*_head(service, {"file": server.file}, facts), "", *align([WORKER_COLUMNS, *rows])]


def render_relay_agent(service: ServiceStatus, agent: RelayAgentStatus) -> list[str]:
    """Return the lines that a person reads about an agent of a relay."""
    since = f"for {human_seconds(agent.seconds)}"
    facts = {
        "agent": agent.agent,
        "relay": f"{agent.relay}, {since}" if agent.linked else f"none {since}: {agent.reason or 'dialling'}",
        "services": ", ".join(f"{name}={target}" for name, target in agent.services.items()),
        "sessions": f"{agent.sessions}, with {agent.streams} streams",
    }
    # It dials, and listens nowhere.
    return _head(service, {"file": agent.file}, facts, listens=False)


def _traffic(traffic: TrafficStatus) -> str:
    carried = f"{human_bytes(traffic.sent)} sent, {human_bytes(traffic.received)} received"
    return f"{traffic.open} open, {traffic.total} in total, {carried}"


def _head(
    service: ServiceStatus, file: Mapping[str, str], more: Mapping[str, str], *, listens: bool = True
) -> list[str]:
    facts = {
        **file,
        **({"listen": ", ".join(service.listen) or "not yet"} if listens else {}),
        "admin": ", ".join(service.admin) or "none",
        **more,
    }
    process = f"process {service.pid}, version {service.version}, up {human_seconds(service.uptime)}"
    wrong = "impaired" if service.ready else "not ready"
    ready = "" if service.ready or service.state != "ready" else ", but not for clients"
    return [
        f"{service.name} is {service.state}{ready} ({process})",
        *(f"  {label:<11}  {value}" for label, value in facts.items()),
        *(f"  {wrong:<11}  {part}: {reason}" for part, reason in service.reasons.items()),
    ]


def _peer_row(name: str, peer: PeerStatus) -> tuple[str, ...]:
    return (
        name,
        "up" if peer.up else "away",
        "" if peer.seconds is None else human_seconds(peer.seconds),
        peer.address,
        str(peer.streams),
        human_bytes(peer.sent),
        human_bytes(peer.received),
        "" if peer.round_trip is None else f"{peer.round_trip * 1e3:.1f} ms",
    )


def _worker_row(worker: WorkerStatus) -> tuple[str, ...]:
    return (
        str(worker.worker),
        worker.state,
        human_seconds(worker.uptime),
        "none" if worker.pid is None else str(worker.pid),
        str(worker.restarts),
        str(worker.clients),
        str(worker.agents),
        str(worker.sessions),
        worker.audit or "none",
    )


def _upstream_rows(proxy: ProxyStatus) -> list[tuple[str, ...]]:
    return [
        (
            name,
            upstream.state,
            "" if upstream.seconds is None else human_seconds(upstream.seconds),
            "; ".join(filter(None, [upstream.reason, *(f"{k} {v}" for k, v in upstream.details.items())])),
        )
        for name, upstream in proxy.upstreams.items()
    ]


def align(rows: list[tuple[str, ...]]) -> list[str]:
    """Return *rows* with their columns one below the other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def human_bytes(count: int) -> str:
    """Return *count* bytes in the unit that leaves one to three digits before the point."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    minutes, secs = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (secs, "s")]
    first = next((index for index, (amount, _) in enumerate(units) if amount), len(units) - 1)
    return " ".join(f"{amount} {unit}" for amount, unit in units[first : first + 2])
