"""A profile's routes and upstreams from within a Trio program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import session_proxy
from session_proxy.events import Event
from session_proxy.policy.rules import Rule
from session_proxy.profile.model import SshUpstream
from session_proxy.target import Target

REJECTING = session_proxy.Profile(routes=(Rule.of("192.0.2.0/24", "reject"),))


@asynccontextmanager
async def open_echo() -> AsyncGenerator[int]:
    async def echo(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(partial(trio.serve_listeners, echo, listeners))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_destination_is_dialled_by_the_routes() -> None:
    async with open_echo() as port, session_proxy.open(REJECTING) as dial:
        stream = await dial("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        with pytest.raises(session_proxy.NotAllowedError, match=r"rejected by routes\[0\]"):
            await dial("192.0.2.1", 80)
        with pytest.raises(session_proxy.InvalidTargetError, match="not a port"):
            await dial("127.0.0.1", 0)


@pytest.mark.parametrize("kind", [Path, str])
async def test_a_file_is_as_good_as_a_value(tmp_path: Path, kind: type[Path | str]) -> None:
    file = tmp_path / "profile.toml"
    file.write_text('default = "reject"\n')

    async with session_proxy.open(kind(file)) as dial:
        with pytest.raises(session_proxy.NotAllowedError, match="rejected by default"):
            await dial("example.com", 80)


async def test_a_bad_file_is_a_profile_error(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text("lisen = 1\n")

    with pytest.raises(session_proxy.ProfileError, match="did you mean"):
        async with session_proxy.open(file):
            raise AssertionError


async def test_a_required_upstream_that_does_not_work_ends_it_plainly(tmp_path: Path) -> None:
    """No group comes out, whatever nurseries are inside."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    bastion = SshUpstream(address=Target("127.0.0.1", port))
    profile = session_proxy.Profile(upstreams={"bastion": bastion}, default="bastion")
    events: list[Event] = []

    with pytest.raises(session_proxy.UpstreamStartError, match=r"upstream bastion: .*127\.0\.0\.1"):
        async with session_proxy.open(profile, notify=events.append):
            raise AssertionError


def test_every_error_of_a_dial_has_one_base() -> None:
    """So one `except` is enough; what is wrong with a value is a `ValueError` besides."""
    assert issubclass(session_proxy.InvalidTargetError, session_proxy.SessionProxyError)
    assert issubclass(session_proxy.InvalidTargetError, ValueError)


def test_the_face_is_complete_and_importing_it_costs_little() -> None:
    for name in session_proxy.__all__:
        assert getattr(session_proxy, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        session_proxy.frobnicate  # pyright: ignore[reportAttributeAccessIssue] # noqa: B018

    program = "import session_proxy, sys; print('trio' in sys.modules, 'boto3' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
        timeout=60,
    )
    assert done.stdout.split() == ["False", "False"]
