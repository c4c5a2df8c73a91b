"""How a running proxy is shown."""

from __future__ import annotations

import json

import attrs
import pytest
from typer.testing import CliRunner

from session_proxy.cli import asking
from session_proxy.cli.main import app
from session_proxy.cli.status import (
    align,
    human_bytes,
    human_seconds,
    render_relay_agent,
    render_relay_server,
)
from session_proxy.supervision.status import (
    AwgServerStatus,
    PeerStatus,
    ProxyStatus,
    RelayAgentStatus,
    RelayServerStatus,
    ServiceStatus,
    TrafficStatus,
    UpstreamStatus,
    WorkerStatus,
)

SERVICE = ServiceStatus(
    name="dev",
    pid=123,
    version="0.1.0",
    state="ready",
    ready=False,
    reasons={"upstream dev": "down: no answer for 75 s"},
    uptime=3700,
    listen=["127.0.0.1:28881"],
    admin=["127.0.0.1:28890"],
)
PROXY = ProxyStatus(
    profile="/etc/dev.toml",
    connections=TrafficStatus(open=3, total=17, sent=1_234_567, received=999),
    upstreams={
        "direct": UpstreamStatus(state="ready", reason="", seconds=None, required=False, links=0, details={}),
        "dev": UpstreamStatus(
            state="down",
            reason="no answer for 75 s",
            seconds=65,
            required=True,
            links=2,
            details={"via": "i-1"},
        ),
    },
)
ANSWER = {**attrs.asdict(SERVICE), **attrs.asdict(PROXY)}

SHOWN = """\
dev is ready, but not for clients (process 123, version 0.1.0, up 1 h 1 min)
  profile      /etc/dev.toml
  listen       127.0.0.1:28881
  admin        127.0.0.1:28890
  connections  3 open, 17 in total, 1.2 MB sent, 999 B received
  not ready    upstream dev: down: no answer for 75 s

UPSTREAM  STATE  FOR        DETAIL
direct    ready
dev       down   1 min 5 s  no answer for 75 s; via i-1
"""


SERVER = AwgServerStatus(
    file="/etc/server.toml",
    connections=TrafficStatus(open=1, total=2, sent=3, received=4),
    peers={
        "laptop": PeerStatus(
            up=True,
            address="192.0.2.1:40000",
            seconds=65,
            streams=2,
            sent=1500,
            received=20,
            round_trip=0.0123,
        ),
        "phone": PeerStatus(
            up=False, address="", seconds=None, streams=0, sent=0, received=0, round_trip=None
        ),
    },
    rejections={"bad mac1": 3, "unknown type": 0, "too small": 1},
)

SERVER_SHOWN = """\
dev is ready, but not for clients (process 123, version 0.1.0, up 1 h 1 min)
  file         /etc/server.toml
  listen       127.0.0.1:28881
  admin        127.0.0.1:28890
  connections  1 open, 2 in total, 3 B sent, 4 B received
  not ready    upstream dev: down: no answer for 75 s
  rejected     3 bad mac1, 1 too small

PEER    STATE  FOR        ADDRESS          STREAMS  SENT    RECEIVED  ROUND TRIP
laptop  up     1 min 5 s  192.0.2.1:40000  2        1.5 kB  20 B      12.3 ms
phone   away                               0        0 B     0 B
"""


RELAY = RelayServerStatus(file="/etc/relay.toml", clients=3, agents=2, sessions=4, audit=f"17:{'a' * 64}")

RELAY_SHOWN = f"""\
dev is ready, but not for clients (process 123, version 0.1.0, up 1 h 1 min)
  file         /etc/relay.toml
  listen       127.0.0.1:28881
  admin        127.0.0.1:28890
  connected    3 clients, 2 agents
  sessions     4
  audit        17:{"a" * 64}
  not ready    upstream dev: down: no answer for 75 s
"""


AGENT = RelayAgentStatus(
    file="/etc/agent.toml",
    agent="nas",
    relay="wss://relay.example",
    linked=True,
    reason="",
    seconds=65,
    sessions=2,
    streams=7,
    services={"ssh": "127.0.0.1:22"},
)

AGENT_SHOWN = """\
dev is ready, but not for clients (process 123, version 0.1.0, up 1 h 1 min)
  file         /etc/agent.toml
  admin        127.0.0.1:28890
  agent        nas
  relay        wss://relay.example, for 1 min 5 s
  services     ssh=127.0.0.1:22
  sessions     2, with 7 streams
  not ready    upstream dev: down: no answer for 75 s
"""


@pytest.fixture(autouse=True)
def answered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What was asked."""
    calls: list[tuple[object, ...]] = []

    def ask_running(*arguments: object) -> dict[str, object]:
        calls.append(arguments)
        return ANSWER

    monkeypatch.setattr(asking, "ask_running", ask_running)
    return calls


def test_people_get_a_table() -> None:
    assert CliRunner().invoke(app, ["status"]).stdout == SHOWN


@pytest.mark.parametrize(
    ("running", "shown"),
    [(SERVER, SERVER_SHOWN), (RELAY, RELAY_SHOWN), (AGENT, AGENT_SHOWN)],
    ids=lambda each: type(each).__name__,
)
def test_every_service_shows_what_it_has(
    running: attrs.AttrsInstance, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {**attrs.asdict(SERVICE), **attrs.asdict(running)}

    def ask_running(*_arguments: object) -> dict[str, object]:
        return answer

    monkeypatch.setattr(asking, "ask_running", ask_running)

    assert CliRunner().invoke(app, ["status"]).stdout == shown


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("connection refused", "none for 5 s: connection refused"), ("", "none for 5 s: dialling")],
)
def test_an_agent_says_why_it_has_no_relay(reason: str, shown: str) -> None:
    away = attrs.evolve(AGENT, linked=False, relay="", reason=reason, seconds=5.0)

    assert f"  relay        {shown}" in render_relay_agent(SERVICE, away)


def test_a_relay_may_have_no_audit_log() -> None:
    lines = render_relay_server(SERVICE, attrs.evolve(RELAY, audit=""))

    assert "  audit        none" in lines


WORKERS = [
    WorkerStatus(
        worker=1,
        pid=124,
        state="ready",
        uptime=65.0,
        restarts=0,
        clients=3,
        agents=1,
        sessions=4,
        audit="17:abc",
    ),
    WorkerStatus(
        worker=2,
        pid=None,
        state="away",
        uptime=0.0,
        restarts=12,
        clients=0,
        agents=0,
        sessions=0,
        audit="",
    ),
]

WORKERS_SHOWN = """\
  sessions     4
  not ready    upstream dev: down: no answer for 75 s

WORKER  STATE  FOR        PROCESS  RESTARTS  CLIENTS  AGENTS  SESSIONS  AUDIT
1       ready  1 min 5 s  124      0         3        1       4         17:abc
2       away   0 s        none     12        0        0       0         none"""


def test_each_worker_of_a_relay_is_shown() -> None:
    lines = render_relay_server(SERVICE, attrs.evolve(RELAY, audit="", workers=WORKERS))

    assert "\n".join(lines).endswith(WORKERS_SHOWN)


def test_what_is_impaired_is_told() -> None:
    impaired = attrs.evolve(SERVICE, ready=True, reasons={"store": "Redis is away"})

    lines = render_relay_server(impaired, RELAY)

    assert lines[0].startswith("dev is ready (")
    assert "  impaired     store: Redis is away" in lines


def test_machines_get_json(answered: list[tuple[object, ...]]) -> None:
    result = CliRunner().invoke(app, ["status", "--json", "--name", "dev"])

    assert json.loads(result.stdout) == ANSWER
    assert answered == [(None, "dev", "GET", "/status")]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2_500_000, "2.5 MB"),
        (10**9, "1.0 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_bytes_are_in_the_unit_that_fits(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (7325, "2 h 2 min"), (90000, "1 d 1 h")],
)
def test_time_is_in_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


def test_columns_stand_below_each_other() -> None:
    assert align([("A", "BB"), ("long", "")]) == ["A     BB", "long"]
