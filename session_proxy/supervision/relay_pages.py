"""What a relay server shows on its public port to those who ask for no link."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from http import HTTPStatus

from session_proxy.observability.admin import Readiness, admin_routes
from session_proxy.observability.http import Handler, HttpAnswer, HttpRequest
from tunnel_relay.protocol.upgrade import HEALTH_PATH

METRICS_PATH = "/api/tunnel/metrics"

Routes = dict[tuple[str, str], Handler]
RenderMetrics = Callable[[str], tuple[bytes, str]]


def more_admin_routes(render_metrics: RenderMetrics) -> Routes:
    """Return what the admin address has beside what every service has: the same under the tunnel's own names."""

    async def metrics(request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(HTTPStatus.OK, *render_metrics(request.headers.get("accept", "")))

    return {("GET", HEALTH_PATH): health, ("GET", METRICS_PATH): metrics}


def public_routes(
    is_ready: Callable[[], bool],
    render_metrics: RenderMetrics,
    metrics_token: str | None,
    metrics_of_all: Handler | None = None,
) -> Routes:
    """Return what everybody may ask: whether the server lives and is ready, but not why not.

    Metrics are for who presents *metrics_token*, where there is one; *metrics_of_all* answers instead of
    *render_metrics* where this process is not the only one.
    """
    routes = {
        **admin_routes(lambda: Readiness(is_ready()), render_metrics),
        **more_admin_routes(render_metrics),
    }
    for path in ("/metrics", METRICS_PATH):
        handler = routes.pop(("GET", path))
        if metrics_token is not None:
            routes["GET", path] = _guarded(metrics_of_all or handler, metrics_token)
    return routes


async def health(_request: HttpRequest) -> HttpAnswer:
    """Answer that the server lives; that this runs at all is the answer."""
    return HttpAnswer.json({"status": "ok"})


def _guarded(handler: Handler, token: str) -> Handler:
    wanted = f"Bearer {token}".encode()

    async def answer(request: HttpRequest) -> HttpAnswer:
        if hmac.compare_digest(_authorization(request.headers), wanted):
            return await handler(request)
        refusal = HttpAnswer.text("say metrics_token: Authorization: Bearer TOKEN", HTTPStatus.UNAUTHORIZED)
        return HttpAnswer(
            refusal.status, refusal.body, refusal.content_type, (("WWW-Authenticate", "Bearer"),)
        )

    return answer


def _authorization(headers: Mapping[str, str]) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return f"{scheme.capitalize()} {token.strip()}".encode()
