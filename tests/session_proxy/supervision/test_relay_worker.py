"""What a worker hears from its fleet: orders, the metrics of all, and that it is to end."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import structlog
import trio
import trio.testing

from session_proxy.errors import ControlError
from session_proxy.observability.http import Handler, HttpAnswer, HttpRequest, serve_http
from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.profile.relay_model import RelayStore
from session_proxy.profile.secret import Secret
from session_proxy.supervision.control_socket import open_control_socket
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.relay_worker import FLEET, METRICS, ORDERS, Orders, Post, outlive_nobody
from tests.support.folders import runtime_folder
from tests.support.relay_daemon import load_relay
from tunnel_relay.background import open_background


@pytest.fixture
def post() -> Post:
    return Post(Path(runtime_folder()), 2)


@asynccontextmanager
async def serve(post: Post, pages: Mapping[tuple[str, str], Handler]) -> AsyncGenerator[None]:
    """Be the fleet."""
    with open_control_socket(post.folder / FLEET) as listener:
        async with open_background() as nursery:
            await nursery.start(serve_http, pages, [listener])
            yield


async def test_orders_come_as_they_were_given(post: Post, tmp_path: Path) -> None:
    secret = Secret("env", "REDIS_URL", "redis://:hunter2@a")
    server = attrs.evolve(
        load_relay(tmp_path, top='trusted_proxies = "10.0.0.0/8"'), workers=3, store=RelayStore(redis=secret)
    )
    orders = Orders(server=server, log=LogSettings(log_format=LogFormat.JSON), sockets=(5, 7))

    async def give(_request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, orders.encode())

    async with serve(post, {("GET", ORDERS): give}):
        given = await post.orders()
    assert given == orders
    assert given.server.store.redis is not None
    assert given.server.store.redis.reveal() == "redis://:hunter2@a"


async def test_without_a_fleet_there_is_nothing_to_do(post: Post) -> None:
    with pytest.raises(ControlError):
        await post.orders()
    answer = await post.metrics(HttpRequest(method="GET", path="/metrics"))
    assert answer.status == 503


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", "text/plain"), ("application/openmetrics-text", "application/openmetrics-text")],
)
async def test_metrics_are_those_of_all(post: Post, accept: str, content_type: str) -> None:
    async def show(request: HttpRequest) -> HttpAnswer:
        return HttpAnswer.text(f"for {request.headers['accept']}")

    async with serve(post, {("GET", METRICS): show}):
        answer = await post.metrics(
            HttpRequest(method="GET", path="/api/tunnel/metrics", headers={"accept": accept})
        )
    assert answer.body.decode() == f"for {accept}\n"
    assert answer.content_type.startswith(content_type)


def test_sockets_of_workers_have_names_of_their_own(post: Post) -> None:
    names = [path.name for each in (post, Post(post.folder, 1)) for path in (each.control, each.peers)]
    assert names == ["2.sock", "2.peers.sock", "1.sock", "1.peers.sock"]


@pytest.mark.parametrize("phase", list(Phase))
async def test_it_ends_with_who_has_started_it(phase: Phase) -> None:
    reading, writing = os.pipe()
    lifecycle = Lifecycle(phase)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlive_nobody, reading, lifecycle, structlog.get_logger())
            os.write(writing, b"nothing of interest")
            await trio.testing.wait_all_tasks_blocked()
            assert not lifecycle.cut.is_set()
            os.close(writing)
        assert lifecycle.cut.is_set()
        assert lifecycle.stop.is_set()
    finally:
        os.close(reading)
