from __future__ import annotations

import json

import pytest

from session_proxy.observability.admin import Readiness, admin_routes
from session_proxy.observability.http import HttpAnswer, HttpRequest

READY = Readiness(ready=True)
WAITING = Readiness(ready=False, reasons={"upstream dev": "down: no credentials", "proxy": "starting"})


async def get(path: str, readiness: Readiness = READY, accept: str = "") -> HttpAnswer:
    routes = admin_routes(lambda: readiness, lambda asked: (f"metrics for {asked}".encode(), "text/x"))
    return await routes["GET", path](HttpRequest(method="GET", path=path, headers={"accept": accept}))


async def test_a_process_that_answers_is_alive_ready_or_not() -> None:
    assert (await get("/healthz", WAITING)).status == 200


async def test_readiness_is_a_status() -> None:
    answer = await get("/readyz", READY)

    assert (answer.status, answer.body) == (200, b"ready\n")


async def test_what_is_missing_is_said_by_part() -> None:
    answer = await get("/readyz", WAITING)

    assert answer.status == 503
    assert answer.body == b"not ready\nupstream dev: down: no credentials\nproxy: starting\n"


@pytest.mark.parametrize(("readiness", "status"), [(READY, 200), (WAITING, 503)])
async def test_machines_get_json(readiness: Readiness, status: int) -> None:
    answer = await get("/readyz", readiness, accept="application/json")

    assert answer.status == status
    assert json.loads(answer.body) == {"ready": readiness.ready, "reasons": readiness.reasons}


async def test_metrics_are_in_the_format_that_was_asked_for() -> None:
    answer = await get("/metrics", accept="openmetrics")

    assert (answer.body, answer.content_type) == (b"metrics for openmetrics", "text/x")
