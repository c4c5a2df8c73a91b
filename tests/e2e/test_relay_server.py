"""``sproxy relay-server`` from its first line to its exit code, as a process, asked by curl."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
import trio

from tests.support.curl import curl, needs_curl
from tests.support.programs import END, Sproxy, run_sproxy
from tests.support.relay_daemon import open_link, read_audit, start_relay_server, write_relay
from tests.support.relay_tokens import make_certificate, make_token
from tests.support.sproxy import clean_environ
from tunnel_relay.errors import WebSocketClosedError, WebSocketRejectedError
from tunnel_relay.protocol.frames import FrameType, decode
from tunnel_relay.protocol.upgrade import CONNECT_PATH

CERTIFICATE = make_certificate()
TOP = """\
metrics_token = "file:secret"
tls = { certificate = "cert.pem", key = "key.pem" }
admin = { listen = "127.0.0.1:0" }
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return clean_environ(tmp_path)


@pytest.fixture
def relay(tmp_path: Path, environ: dict[str, str]) -> Generator[Sproxy]:
    CERTIFICATE.write(tmp_path)
    file = write_relay(tmp_path, top=TOP, jwt='revoked = "revoked.txt"\n')
    (tmp_path / "revoked.txt").write_text("stolen\n")
    with start_relay_server(file, env=environ) as relay:
        yield relay


@needs_curl
def test_curl_sees_health_and_metrics(relay: Sproxy) -> None:
    base = ["--cacert", str(relay.profile.with_name("cert.pem")), "--tlsv1.3", "--write-out", "%{http_code}"]
    for path, expected in (
        ("/api/tunnel/health", b'{"status": "ok"}\n200'),
        ("/healthz", b"ok\n200"),
        ("/readyz", b"ready\n200"),
    ):
        assert curl(*base, f"https://{relay.address}{path}").stdout == expected
    metrics = f"https://{relay.address}/api/tunnel/metrics"
    assert curl(*base, metrics).stdout.endswith(b"401")
    secret = relay.profile.with_name("secret").read_text()
    assert (
        b"\ntunnel_circuit_breaker_state 0.0\n"
        in curl(*base, "--header", f"Authorization: Bearer {secret}", metrics).stdout
    )
    assert b"\ntunnel_queue_size 0.0\n" in curl(f"http://{relay.admin}/metrics").stdout
    assert curl(*base, "--data", "x", f"https://{relay.address}{CONNECT_PATH}").stdout.endswith(b"405")
    old = curl("--cacert", base[1], "--tls-max", "1.2", f"https://{relay.address}/healthz")
    assert old.returncode != 0


def test_it_ends_when_all_have_left(relay: Sproxy, environ: dict[str, str]) -> None:
    async def visit() -> None:
        url, context = f"wss://{relay.address}{CONNECT_PATH}", CERTIFICATE.client_context()
        for token, status in (
            (make_token("alice", seconds=-60), 401),
            (make_token("mallory", token_id="stolen"), 401),
        ):
            with pytest.raises(WebSocketRejectedError) as caught:
                async with open_link(url, token, context=context):
                    pass
            assert caught.value.status == status
        with trio.fail_after(END):
            async with open_link(url, make_token("alice"), context=context) as websocket:
                shown = json.loads(run_sproxy("status", "--name", "relay", "--json", env=environ).stdout)
                assert (shown["ready"], shown["clients"], shown["agents"]) == (True, 1, 0)
                relay.process.send_signal(signal.SIGTERM)
                message = await websocket.receive()
                assert isinstance(message, bytes)
                assert [frame.type for frame in decode(message)] == [FrameType.GOAWAY]

    trio.run(visit)
    assert relay.process.wait(END) == 0
    actions = [
        (line["action"], line["result"]) for line in read_audit(relay.profile.with_name("audit.jsonl"))
    ]
    assert actions == [
        ("configure", "success"),
        ("authenticate", "failure"),
        ("authenticate", "failure"),
        ("authenticate", "success"),
        ("connect", "success"),
        ("disconnect", "success"),
    ]


def test_who_stays_is_sent_away(tmp_path: Path, environ: dict[str, str]) -> None:
    file = write_relay(tmp_path, more="[limits]\ndrain = 0.2\n")

    async def stay(relay: Sproxy) -> None:
        with trio.fail_after(END):
            async with open_link(f"ws://{relay.address}{CONNECT_PATH}", make_token("alice")) as websocket:
                relay.process.send_signal(signal.SIGTERM)
                assert await websocket.receive(), "it is asked to leave"
                with pytest.raises(WebSocketClosedError) as caught:
                    await websocket.receive()
                assert caught.value.code == 1001

    with start_relay_server(file, env=environ) as relay:
        trio.run(stay, relay)
        assert relay.process.wait(END) == 0


def test_a_bad_file_is_told_in_full(tmp_path: Path, environ: dict[str, str]) -> None:
    file = write_relay(tmp_path, top='profile = "fast"\nlisten2 = 1')
    done = run_sproxy("relay-server", str(file), env=environ)
    assert done.returncode == 78
    assert "profile" in done.stderr
    assert "listen2" in done.stderr


def test_it_takes_over_its_file_while_it_runs(tmp_path: Path, environ: dict[str, str]) -> None:
    file = write_relay(tmp_path)
    with start_relay_server(file, env=environ) as relay:
        write_relay(tmp_path, more="[tiers.free]\nstreams = 7\n")
        done = run_sproxy("reload", "--name", "relay", env=environ)
        assert (done.returncode, done.stderr) == (0, "")
        write_relay(tmp_path, top="nonsense = 1")
        relay.process.send_signal(signal.SIGHUP)
        refused = relay.wait_for(lambda: relay.find("not reloaded"))
        assert "nonsense" in str(refused["reason"])
        assert relay.stop() == 0
    [_, reloaded] = [line for line in read_audit(tmp_path / "audit.jsonl") if line["action"] == "configure"]
    assert reloaded["result"] == "success"
