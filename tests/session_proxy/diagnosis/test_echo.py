from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from session_proxy.diagnosis.course import make_setting
from session_proxy.diagnosis.echo import HINT, check_echo
from session_proxy.errors import NotAllowedError, RefusedError, UnreachableError
from session_proxy.outbound.transport import Services
from session_proxy.target import Target
from tunnel_relay.stages import Stage, Step

WANTED, OTHERWISE = Target("db.example", 5432), Target("localhost", 22)

Connect = Callable[[Target], Awaitable[trio.abc.Stream]]


def saying(words: bytes | None) -> Connect:
    """Return what connects to somebody who says *words*, and for `b""` hangs up."""

    async def connect(target: Target) -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        await trio.sleep(0.25)
        if words:
            await theirs.send_all(words)
        elif words is not None:
            await theirs.send_eof()
        return ours

    return connect


def failing(exc: Exception) -> Connect:
    async def connect(target: Target) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise exc

    return connect


async def echo(connect: Connect, target: Target | None) -> Stage:
    course = make_setting((Step.ECHO,), Services(), Path()).course
    [stage] = await course.run(lambda: check_echo(course, connect, target, OTHERWISE))
    return stage


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (b"SSH-2.0-x\r\nmore", 'localhost:22 opened in 250 ms and says "SSH-2.0-x"'),
        (None, "localhost:22 opened in 250 ms"),
        (b"\x1b[2J", 'localhost:22 opened in 250 ms and says " [2J"'),
        (
            b"",
            f"localhost:22 opened in 250 ms, and closed at once: nothing may listen there; {HINT}",
        ),
    ],
)
async def test_what_is_heard(words: bytes | None, told: str, autojump_clock: MockClock) -> None:
    stage = await echo(saying(words), None)

    assert (stage.outcome, stage.found) == ("ok", told)


async def test_a_refusal_shows_that_the_way_carries() -> None:
    stage = await echo(failing(RefusedError("refused")), None)

    assert stage.outcome == "ok"
    assert stage.found.startswith("the far end answers for localhost:22: refused; --target")


@pytest.mark.parametrize(
    ("exc", "target", "category"),
    [
        (RefusedError("refused"), WANTED, "network"),
        (UnreachableError("no route"), None, "network"),
        (NotAllowedError("forbidden; ask"), None, "authentication"),
    ],
)
async def test_what_fails(exc: Exception, target: Target | None, category: str) -> None:
    stage = await echo(failing(exc), target)

    assert (stage.outcome, stage.cause) == ("failed", f"{target or OTHERWISE}: {str(exc).partition(';')[0]}")
    assert stage.category is not None
    assert stage.category.value == category


async def test_a_destination_that_hangs_up(autojump_clock: MockClock) -> None:
    stage = await echo(saying(b""), WANTED)

    assert (stage.outcome, stage.cause) == ("failed", "db.example:5432 was closed at once")
