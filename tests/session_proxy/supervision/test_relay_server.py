"""The daemon of a relay server, on a real port: whom it serves, and what it tells, counts and remembers."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from session_proxy.errors import ListenError, ProfileError
from session_proxy.observability import audit_file, relay_log
from session_proxy.observability.audit_file import AuditError, open_audit
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision import relay_files, relay_server
from session_proxy.supervision.relay_pages import METRICS_PATH
from tests.support.relay_daemon import load_relay, open_link, open_relay_daemon
from tests.support.relay_tokens import make_certificate, make_token
from tests.support.tunnels import eventually
from tunnel_relay.errors import WebSocketClosedError, WebSocketError, WebSocketRejectedError
from tunnel_relay.protocol.frames import Frame, FrameType, decode, encode
from tunnel_relay.protocol.greetings import Hello, write
from tunnel_relay.protocol.upgrade import CONNECT_PATH
from tunnel_relay.server.service import GOING_AWAY
from tunnel_relay.websocket import WebSocket

SECONDS = 90
AGENT = "?agent=nas&instance=1"


async def receive(websocket: WebSocket) -> list[Frame]:
    message = await websocket.receive()
    assert isinstance(message, bytes)
    return list(decode(message))


def get(path: str, **headers: str) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: relay\r\n{fields}\r\n".encode()


async def test_a_client_and_an_agent_are_joined(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            async with (
                served.link(make_token("alice"), AGENT) as agent,
                served.link(make_token("alice"), **{"X-Correlation-ID": "c-17"}) as client,
            ):
                hello = write(Hello(agent="nas", token="0123456789abcdef" * 2, fence=1))
                await client.send_binary(encode([Frame(FrameType.HELLO, 1, payload=hello)]))
                [frame] = await receive(agent)
                assert (frame.type, bytes(frame.payload)) == (FrameType.HELLO, hello)
                status = served.daemon.status()
                assert (status["clients"], status["agents"], status["sessions"]) == (1, 1, 1)
                assert served.metrics()['tunnel_active_connections{role="agent"}'] == 1
                assert served.metrics()["sproxy_relay_sessions"] == 1
            await eventually(lambda: len(served.lines("link closed")) == 2)
            opened = served.lines("link opened")[-1]
            assert (opened["userId"], opened["correlationId"]) == ("alice", "c-17")
            assert served.metrics()['tunnel_active_connections{role="agent"}'] == 0
        actions = [(line["action"], line["userId"]) for line in served.audited()]
        assert actions[0] == ("configure", "")
        assert [action for action, user in actions[1:] if user == "alice"] == [
            "authenticate",
            "register",
            "authenticate",
            "connect",
            "disconnect",
            "disconnect",
        ]


async def test_sessions_are_counted_for_as_long_as_the_file_says(tmp_path: Path) -> None:
    async with open_relay_daemon(load_relay(tmp_path, more="[limits]\ngrace = 7\n")) as served:
        service = served.daemon._service
        assert service is not None
        assert service.census.grace == 7


async def test_pages(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path, top='metrics_token = "file:secret"')) as served:
            for path in ("/healthz", "/api/tunnel/health", "/readyz"):
                answer = await served.ask(get(path))
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"\r\nConnection: close\r\n" in answer
            assert (await served.ask(get("/nothing"))).startswith(b"HTTP/1.1 404 ")
            assert (await served.ask(get(METRICS_PATH))).startswith(b"HTTP/1.1 401 ")
            assert (await served.ask(get(CONNECT_PATH))).startswith(b"HTTP/1.1 401 ")
            token = served.daemon.config.metrics_token
            assert token is not None
            answer = await served.ask(get(METRICS_PATH, Authorization=f"Bearer {token.reveal()}"))
            assert b"\ntunnel_queue_size 0.0\n" in answer
            assert ("GET", METRICS_PATH) in served.daemon.pages()


async def test_tls_and_a_new_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_files, "LOOK", 0.01)
    old, new = make_certificate(), make_certificate()
    old.write(tmp_path)
    top = 'tls = { certificate = "cert.pem", key = "key.pem" }'
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path, top=top)) as served:
            url = f"wss://{served.address}{CONNECT_PATH}"
            async with open_link(url, make_token("alice"), context=old.client_context()):
                new.write(tmp_path)
                await eventually(lambda: len(served.lines("certificate")) > 1)
            async with open_link(url, make_token("alice"), context=new.client_context()):
                pass
            weak = new.client_context()
            weak.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(WebSocketError):
                async with open_link(url, make_token("alice"), context=weak):
                    pass


async def test_a_token_is_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_files, "LOOK", 0.01)
    monkeypatch.setattr("tunnel_relay.server.service.LOOK", 0.01)
    revoked = tmp_path / "revoked.txt"
    revoked.write_text("")
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path, jwt='revoked = "revoked.txt"\n')) as served:
            async with served.link(make_token("bob", token_id="other")) as other:
                async with served.link(make_token("alice", token_id="stolen")) as websocket:
                    revoked.write_text("stolen\n")
                    with pytest.raises(WebSocketClosedError) as caught:
                        await websocket.receive()
                    assert caught.value.code == 4401
                with pytest.raises(WebSocketRejectedError) as rejected:
                    async with served.link(make_token("alice", token_id="stolen")):
                        pass
                assert rejected.value.status == 401
                await other.send_binary(encode([Frame(FrameType.PING)]))
                assert [frame.type for frame in await receive(other)] == [FrameType.PONG]
            assert served.metrics()['tunnel_errors_total{category="authentication"}'] == 2


async def test_the_end_is_announced(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with (
            open_relay_daemon(load_relay(tmp_path, more="[limits]\ndrain = 0.1\n")) as served,
            served.link(make_token("alice")) as websocket,
        ):
            served.stop.set()
            [frame] = await receive(websocket)
            assert (frame.type, frame.session) == (FrameType.GOAWAY, 0)
            with pytest.raises(WebSocketClosedError) as caught:
                await websocket.receive()
            assert caught.value.code == GOING_AWAY
            with pytest.raises(OSError, match="all attempts to connect"):
                await served.ask(get("/healthz"))
            await served.over.wait()


async def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real = os.write
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            assert served.daemon.obstacles() == {}
            monkeypatch.setattr(audit_file.os, "write", full)
            async with served.link(make_token("alice")):
                await eventually(lambda: bool(served.daemon.obstacles()))
                [(part, reason)] = served.daemon.obstacles().items()
                assert part == "audit"
                assert reason.endswith("audit.jsonl: no space left on device")
                monkeypatch.setattr(audit_file.os, "write", real)
                await eventually(lambda: not served.daemon.obstacles())
        assert [line["action"] for line in served.audited()] == [
            "configure",
            "authenticate",
            "connect",
            "disconnect",
        ]


def told(entries: Sequence[Mapping[str, object]], where: str) -> int:
    """Return how many events *entries* tell of, which have what was counted in *where*."""
    contexts = [cast("dict[str, int]", entry[where]) for entry in entries]
    return sum(1 + context.get("repeated", 0) for context in contexts)


async def test_what_is_counted_of_a_flood_is_told_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_log, "QUIET", 0.2)
    monkeypatch.setattr(relay_server, "FLUSH", 0.05)
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(served.ask, get(CONNECT_PATH))
            # Now and then.
            await eventually(lambda: told(served.lines("turned away"), "context") == 5)
        # And in the end.
        assert told([line for line in served.audited() if line["action"] == "authenticate"], "details") == 5


async def test_spans_are_sent(tmp_path: Path) -> None:
    got: list[bytes] = []

    async def collect(stream: trio.SocketStream) -> None:
        got.append(bytes(await stream.receive_some(4096)))
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with trio.fail_after(SECONDS):
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, collect, [listener])
            port = listener.socket.getsockname()[1]
            more = f'[tracing]\nendpoint = "http://127.0.0.1:{port}"\n'
            async with open_relay_daemon(load_relay(tmp_path, more=more)) as served:
                async with served.link(make_token("alice")):
                    pass
                await eventually(lambda: bool(served.lines("link closed")))
            await eventually(lambda: bool(got))
            assert got[0].startswith(b"POST /v1/traces HTTP/1.1\r\n")
            nursery.cancel_scope.cancel()


async def test_spans_need_what_sends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "session_proxy.observability.tracing", None)
    server = load_relay(tmp_path, more='[tracing]\nendpoint = "http://127.0.0.1:1"\n')
    with pytest.RaisesGroup(pytest.RaisesExc(ProfileError, match=r"\[tracing\]"), flatten_subgroups=True):
        async with open_relay_daemon(server):
            pass


async def test_an_audit_log_of_somebody_else(tmp_path: Path) -> None:
    server = load_relay(tmp_path)
    with open_audit(tmp_path / "audit.jsonl"), pytest.RaisesGroup(AuditError, flatten_subgroups=True):
        async with open_relay_daemon(server):
            pass


async def test_a_port_of_somebody_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = (ListenAddress(*listener.getsockname()),)
        server = attrs.evolve(load_relay(tmp_path), listen=taken)
        with pytest.RaisesGroup(ListenError, flatten_subgroups=True):
            async with open_relay_daemon(server):
                pass
