"""Spans, as a collector gets them."""

from __future__ import annotations

from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer

import attrs
import pytest
import trio
import trio.testing
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from session_proxy.observability import tracing
from session_proxy.observability.tracing import SERVICE, RelayTracer, collector
from tests.support.relay_events import ANSWERED, EVENTS, ORIGIN, closed, turned_away
from tests.support.tunnels import eventually
from tunnel_relay.background import open_background
from tunnel_relay.server.events import Answered, Cause, Ending, Kind, LinkClosed, TurnedAway

NOW = 1_800_000_000.0


@attrs.define(eq=False)
class Kept:
    """An exporter that keeps what it gets, unless it is away."""

    spans: list[ReadableSpan] = attrs.field(factory=list[ReadableSpan])
    away: bool = False
    calls: int = 0
    error: Exception | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.calls += 1
        if self.error is not None:
            raise self.error
        if self.away:
            return SpanExportResult.FAILURE
        self.spans += spans
        return SpanExportResult.SUCCESS


async def sent(tracer: RelayTracer) -> list[str]:
    """Have the tracer send what it has, as it does at its end, and return what it tells."""
    told: list[str] = []
    async with open_background() as nursery:
        nursery.start_soon(tracer.run, told.append)
        await trio.testing.wait_all_tasks_blocked()
    return told


async def test_what_ends_is_a_span() -> None:
    kept = Kept()
    tracer = RelayTracer(kept, unix_time=lambda: NOW)
    answered = attrs.evolve(ANSWERED, number=7)
    refused = attrs.evolve(ANSWERED, kind=Kind.REQUEST, ok=False, number=8)
    for event in (answered, refused, turned_away(Cause.EXPIRED, 401), closed(Ending.LEFT)):
        tracer(event)
    assert await sent(tracer) == []
    first, second, third, last = kept.spans
    assert [span.name for span in kept.spans] == [
        "tunnel.open",
        "tunnel.request",
        "tunnel.upgrade",
        "tunnel.connection",
    ]
    assert dict(first.attributes or {}) == {
        "userId": "alice",
        "connectionId": "c1",
        "correlationId": "r1",
        "client.address": "203.0.113.9",
        "requestId": "c1-7",
        "latency": 250.0,
    }
    assert (first.start_time, first.end_time) == (1_799_999_999_750_000_000, 1_800_000_000_000_000_000)
    assert [span.status.is_ok for span in (first, second, third, last)] == [True, False, False, True]
    assert third.status.description == "it is expired"
    # They are of one connection.
    assert len({span.context.trace_id for span in kept.spans if span.context}) == 1


async def test_a_trace_of_the_client_is_joined() -> None:
    kept = Kept()
    tracer = RelayTracer(kept)
    correlation = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracer(attrs.evolve(ANSWERED, origin=attrs.evolve(ORIGIN, correlation=correlation)))
    await sent(tracer)
    [span] = kept.spans
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 300, 700), (1.0, 1000, 1000)])
async def test_a_share_is_kept(share: float, least: int, most: int) -> None:
    kept = Kept()
    tracer = RelayTracer(kept, share)
    for number in range(1000):
        tracer(attrs.evolve(ANSWERED, origin=attrs.evolve(ORIGIN, correlation=f"c{number}")))
    await sent(tracer)
    assert least <= len(kept.spans) <= most


async def test_a_collector_that_is_away_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PAUSE", 0.001)
    kept = Kept(away=True)
    tracer = RelayTracer(kept)
    tell, told = trio.open_memory_channel[str](10)
    with trio.fail_after(90):
        async with open_background() as nursery:
            nursery.start_soon(tracer.run, tell.send_nowait)
            tracer(ANSWERED)
            assert await told.receive() == "the collector takes no spans"
            tracer(ANSWERED)
            await eventually(lambda: kept.calls == 2)
            kept.away = False
            tracer(ANSWERED)
            assert await told.receive() == "the collector has spans again"
    assert len(kept.spans) == 1


async def test_an_exporter_that_raises_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PAUSE", 0.001)
    kept = Kept(error=ValueError("no such header"))
    tracer = RelayTracer(kept)
    tell, told = trio.open_memory_channel[str](10)
    with trio.fail_after(90):
        async with open_background() as nursery:
            nursery.start_soon(tracer.run, tell.send_nowait)
            tracer(ANSWERED)
            assert await told.receive() == "the collector takes no spans: ValueError: no such header"
            tracer(ANSWERED)
            await eventually(lambda: kept.calls == 2)
            kept.error = None
            tracer(ANSWERED)
            assert await told.receive() == "the collector has spans again"
            kept.error = ValueError("no such header")
            tracer(ANSWERED)
    assert len(kept.spans) == 1


async def test_what_waits_is_bounded_and_sent_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MOST_WAITING", 3)
    kept = Kept()
    tracer = RelayTracer(kept)
    async with open_background() as nursery:
        nursery.start_soon(tracer.run, print)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            tracer(ANSWERED)
    assert (len(kept.spans), tracer.lost) == (3, 2)


class Collector(HTTPServer):
    """Keeps what is posted."""

    got: list[tuple[str, bytes]]


class Handler(BaseHTTPRequestHandler):
    """See `Collector`."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


async def test_a_collector_gets_them() -> None:
    with Collector(("127.0.0.1", 0), Handler) as server:
        server.got = []
        tracer = RelayTracer(collector(f"http://127.0.0.1:{server.server_port}/"))
        for event in EVENTS:
            tracer(event)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, server.handle_request)
            await sent(tracer)
    [(path, body)] = server.got
    assert path == "/v1/traces"
    request = ExportTraceServiceRequest.FromString(body)
    [resource] = request.resource_spans
    assert SERVICE in {attribute.value.string_value for attribute in resource.resource.attributes}
    [scope] = resource.scope_spans
    shown = [event for event in EVENTS if isinstance(event, Answered | LinkClosed | TurnedAway)]
    assert len(scope.spans) == len(shown)
