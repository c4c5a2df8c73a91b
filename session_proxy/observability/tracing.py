"""Spans of what happens at a relay server, sent to a collector of OpenTelemetry. The only file that imports it.

What comes over one connection is one trace: that of the client's ``traceparent`` (W3C Trace Context), where the
request for the connection has one. Spans are made when what they tell of is over, and sent off the event loop, now and
then; those that cannot be sent are lost.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs
import trio
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from tunnel_relay.server.events import Answered, Ending, LinkClosed, RelayEvent, TurnedAway

SERVICE = "sproxy-relay-server"

# Spans that may wait, that are sent at once, and seconds between two times.
MOST_WAITING = 8192
BATCH = 512
PAUSE = 5.0

# Seconds that a collector may take, and that the last sending may, at the end.
LIMIT = 5
FINISH = 2.0

_NANO = 1_000_000_000
_TRACE_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Exporter(Protocol):
    """Sends spans; may block."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send *spans*, and tell whether they have arrived."""
        ...


def collector(endpoint: str) -> Exporter:
    """Return what sends spans to the collector at *endpoint*."""
    return OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=LIMIT)


class _Waiting(SpanProcessor):
    """Where spans wait until they are sent."""

    def __init__(self) -> None:
        self.spans: deque[ReadableSpan] = deque()
        self.lost = 0

    def on_end(self, span: ReadableSpan) -> None:
        if len(self.spans) >= MOST_WAITING:
            self.lost += 1
        else:
            self.spans.append(span)


@attrs.define(eq=False)
class RelayTracer:
    """Makes spans of events, and sends them.

    Attributes:
      exporter: Sends them.
      share: Which part of the traces is kept.
      unix_time: The time of day.

    """

    exporter: Exporter
    share: float = 1.0
    unix_time: Callable[[], float] = time.time
    _waiting: _Waiting = attrs.field(factory=_Waiting, init=False)
    _tracer: trace.Tracer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        provider = TracerProvider(
            sampler=TraceIdRatioBased(self.share),
            resource=Resource.create({"service.name": SERVICE}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._waiting)
        self._tracer = provider.get_tracer("session_proxy")

    @property
    def lost(self) -> int:
        """How many spans there was no room for."""
        return self._waiting.lost

    def __call__(self, event: RelayEvent) -> None:
        """Make the span that *event* is the end of."""
        match event:
            case Answered(kind=kind, ok=ok, seconds=seconds, number=number):
                about = {"requestId": f"{event.origin.connection}-{number}", "latency": seconds * 1000}
                self._add(f"tunnel.{kind.value}", event, seconds, "" if ok else "refused", about)
            case LinkClosed(agent=agent, ending=ending, detail=detail, duration=duration):
                about = {"agent": agent or "", "ending": ending.value, "latency": duration * 1000}
                wrong = "" if ending is Ending.LEFT else detail
                self._add("tunnel.connection", event, duration, wrong, about)
            case TurnedAway(cause=cause, status=status, detail=detail):
                about = {"cause": cause.value, "http.response.status_code": status}
                self._add("tunnel.upgrade", event, 0.0, detail, about)
            case _:
                pass

    def _add(
        self, name: str, event: RelayEvent, seconds: float, wrong: str, about: Mapping[str, str | float]
    ) -> None:
        origin, end = event.origin, round(self.unix_time() * _NANO)
        span = self._tracer.start_span(
            name,
            context=_context(origin.correlation or origin.connection),
            kind=SpanKind.SERVER,
            start_time=end - round(seconds * _NANO),
            attributes={
                "userId": event.user,
                "connectionId": origin.connection,
                "correlationId": origin.correlation,
                "client.address": origin.address,
                **about,
            },
        )
        if wrong:
            span.set_status(StatusCode.ERROR, wrong)
        span.end(end)

    async def run(self, tell: Callable[[str], None]) -> None:
        """Send spans until cancelled, and then what is left; tell when the collector is lost, or is there again."""
        trouble = ""
        try:
            while True:
                await trio.sleep(PAUSE)
                while self._waiting.spans:
                    before, trouble = trouble, await self._send()
                    if bool(trouble) is not bool(before):
                        tell(trouble or "the collector has spans again")
        finally:
            with trio.move_on_after(FINISH, shield=True):
                while self._waiting.spans and not trouble:
                    trouble = await self._send()

    async def _send(self) -> str:
        """Send some spans; return what is wrong, "" for nothing."""
        spans = self._waiting.spans
        batch = [spans.popleft() for _ in range(min(BATCH, len(spans)))]
        try:
            result = await trio.to_thread.run_sync(self.exporter.export, batch, abandon_on_cancel=True)
        except Exception as exc:  # its libraries raise what they will, and spans are not worth it
            return f"the collector takes no spans: {type(exc).__name__}: {exc}"
        return "" if result is SpanExportResult.SUCCESS else "the collector takes no spans"


def _context(correlation: str) -> Context:
    """Return the trace of all that has this in common."""
    parent = _TRACE_PARENT.fullmatch(correlation)
    if parent is not None:
        trace_id, span_id = parent[1], parent[2]
    else:
        digest = hashlib.sha256(correlation.encode()).hexdigest()
        trace_id, span_id = digest[:32], digest[32:48]
    context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(1))
    return trace.set_span_in_context(NonRecordingSpan(context))
