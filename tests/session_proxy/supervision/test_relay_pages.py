"""What a relay server shows to whom."""

from __future__ import annotations

import pytest

from session_proxy.observability.http import HttpAnswer, HttpRequest
from session_proxy.supervision.relay_pages import METRICS_PATH, Routes, more_admin_routes, public_routes


def render(accept: str) -> tuple[bytes, str]:
    return f"metrics for {accept}".encode(), "text/plain"


async def get(routes: Routes, path: str, **headers: str) -> HttpAnswer:
    return await routes["GET", path](HttpRequest(method="GET", path=path, headers=headers))


@pytest.mark.parametrize("path", ["/healthz", "/api/tunnel/health"])
async def test_whether_it_lives(path: str) -> None:
    assert (await get(public_routes(lambda: False, render, None), path)).status == 200


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_whether_it_is_ready_but_not_why(ready: bool, status: int) -> None:
    answer = await get(public_routes(lambda: ready, render, None), "/readyz")
    assert answer.status == status
    assert answer.body == (b"ready\n" if ready else b"not ready\n")


@pytest.mark.parametrize("path", ["/metrics", METRICS_PATH])
async def test_metrics_are_for_who_has_the_token(path: str) -> None:
    assert ("GET", path) not in public_routes(lambda: True, render, None)
    routes = public_routes(lambda: True, render, "secret")
    for authorization in ("", "Bearer", "Bearer secre", "Basic secret", "Bearer sécret"):
        answer = await get(routes, path, authorization=authorization)
        assert (answer.status, answer.headers) == (401, (("WWW-Authenticate", "Bearer"),))
    answer = await get(routes, path, authorization="bearer secret", accept="all")
    assert (answer.status, answer.body) == (200, b"metrics for all")


async def test_the_admin_address_has_them_for_all() -> None:
    routes = more_admin_routes(render)
    assert (await get(routes, METRICS_PATH)).body == b"metrics for "
    assert (await get(routes, "/api/tunnel/health")).body == b'{"status": "ok"}\n'


async def test_metrics_may_be_those_of_several_processes() -> None:
    async def of_all(_request: HttpRequest) -> HttpAnswer:
        return HttpAnswer.text("all")

    routes = public_routes(lambda: True, render, "secret", of_all)
    assert (await get(routes, "/metrics", authorization="Bearer secret")).body == b"all\n"
    assert (await get(routes, "/metrics")).status == 401
    assert ("GET", "/metrics") not in public_routes(lambda: True, render, None, of_all)
