"""What operators and their machines ask a service over HTTP: is it alive, is it ready, its metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

import attrs

from session_proxy.observability.http import Handler, HttpAnswer, HttpRequest


@attrs.frozen
class Readiness:
    """Whether new clients would be served; *reasons* says by part why not."""

    ready: bool
    reasons: Mapping[str, str] = attrs.field(factory=dict[str, str])

    def __str__(self) -> str:
        lines = [f"{part}: {reason}" for part, reason in self.reasons.items()]
        return "\n".join(["ready" if self.ready else "not ready", *lines])


def admin_routes(
    readiness: Callable[[], Readiness], render_metrics: Callable[[str], tuple[bytes, str]]
) -> dict[tuple[str, str], Handler]:
    """Return the pages that every service has: ``/healthz``, ``/readyz`` and ``/metrics``.

    ``/readyz`` answers 503 with the reasons while the service is not ready, as text or, if asked, as JSON.
    *render_metrics* takes an ``Accept`` header and returns a body and its content type.
    """

    async def healthz(_request: HttpRequest) -> HttpAnswer:
        # That this runs at all is the answer: the event loop turns.
        return HttpAnswer.text("ok")

    async def readyz(request: HttpRequest) -> HttpAnswer:
        now = readiness()
        status = HTTPStatus.OK if now.ready else HTTPStatus.SERVICE_UNAVAILABLE
        if request.accepts_json():
            return HttpAnswer.json({"ready": now.ready, "reasons": dict(now.reasons)}, status)
        return HttpAnswer.text(str(now), status)

    async def metrics(request: HttpRequest) -> HttpAnswer:
        body, content_type = render_metrics(request.headers.get("accept", ""))
        return HttpAnswer(HTTPStatus.OK, body, content_type)

    return {("GET", "/healthz"): healthz, ("GET", "/readyz"): readyz, ("GET", "/metrics"): metrics}
