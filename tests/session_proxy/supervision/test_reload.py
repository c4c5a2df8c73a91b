"""All of a change, or nothing of it, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from session_proxy.errors import ExitCode, ListenError, Problem, ProfileError, UpstreamStartError
from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.policy.changes import Changes
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.lifecycle import Lifecycle
from session_proxy.supervision.reload import LIMIT, Change, Reloader, ReloadReport

LISTEN = ListenAddress("127.0.0.1", 4712)
ADMIN = ListenAddress("127.0.0.1", 4713)
CHANGES = Changes(settings=("routes",), added=("dev",))


@attrs.frozen(eq=False)
class FakeChange:
    """A change that notes when it is made."""

    steps: list[str]
    changes: Changes = CHANGES
    admin: ListenAddress | None = ADMIN
    drain: float = 7.0

    def commit(self) -> Sequence[ListenAddress]:
        self.steps.append("commit")
        return [LISTEN]


@attrs.define(eq=False)
class FakeDaemon:
    """Prepares for so many seconds, and fails, or does not."""

    steps: list[str]
    failure: Exception | None = None
    takes: float = 0.0
    meanwhile: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def prepare(self) -> AsyncGenerator[Change]:
        self.steps.append("prepare")
        await trio.sleep(self.takes)
        if self.failure is not None:
            raise self.failure
        self.meanwhile()
        yield FakeChange(self.steps)


@attrs.define(eq=False)
class FakePort:
    """An admin port that moves where it is told to, or cannot."""

    steps: list[str]
    failure: Exception | None = None

    @asynccontextmanager
    async def prepare(self, address: ListenAddress | None) -> AsyncGenerator[Callable[[], None]]:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        yield lambda: self.steps.append(f"admin to {address}")


@attrs.define(eq=False)
class World:
    """A reloader, the steps that it took, and its log."""

    steps: list[str] = attrs.field(factory=list[str])
    lines: list[dict[str, str]] = attrs.field(factory=list[dict[str, str]])
    lifecycle: Lifecycle = attrs.field(factory=Lifecycle)
    daemon: FakeDaemon = attrs.field(init=False)
    port: FakePort = attrs.field(init=False)
    reloader: Reloader = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.daemon, self.port = FakeDaemon(self.steps), FakePort(self.steps)
        settings = LogSettings(log_format=LogFormat.JSON)
        log = make_logger(lambda line: self.lines.append(json.loads(line)), settings)
        self.lifecycle.become_ready(["127.0.0.1:4711"])
        self.reloader = Reloader("dev", self.daemon, self.lifecycle, self.port, log, self.adopt)

    def adopt(self, change: Change) -> None:
        self.steps.append(f"drain {change.drain}")

    def said(self, *fields: str) -> list[tuple[str, ...]]:
        return [tuple(line[field] for field in ("event", *fields)) for line in self.lines]


async def test_a_change_is_made_and_told() -> None:
    world = World()

    report = await world.reloader.reload()

    assert report == ReloadReport(done=True, changes=["changed: routes", "upstream dev: new"])
    assert world.steps == ["prepare", "commit", f"admin to {ADMIN}", "drain 7.0"]
    assert world.lifecycle.listen == (str(LISTEN),)
    assert world.said("changes") == [("reloaded", "changed: routes; upstream dev: new")]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (
            ProfileError(Path("dev.toml"), [Problem("a", "wrong"), Problem("b", "worse")]),
            ExitCode.CONFIGURATION,
        ),
        (ListenError("cannot listen on x: y"), ExitCode.FAILURE),
        (UpstreamStartError("dev", "refused", ExitCode.NOT_PERMITTED), ExitCode.NOT_PERMITTED),
    ],
)
async def test_what_fails_changes_nothing_and_says_all(failure: Exception, code: ExitCode) -> None:
    world = World()
    world.daemon.failure = failure

    report = await world.reloader.reload()

    assert report == ReloadReport(done=False, problems=str(failure).splitlines(), exit_code=code)
    assert world.steps == ["prepare"]
    assert world.lifecycle.listen == ("127.0.0.1:4711",)
    assert world.said("reason", "level") == [("not reloaded", line, "error") for line in report.problems]


async def test_a_file_that_cannot_be_read_is_a_wrong_one() -> None:
    world = World()
    world.daemon.failure = PermissionError(13, "Permission denied", "dev.toml")

    report = await world.reloader.reload()

    assert (report.problems, report.exit_code) == (["dev.toml: Permission denied"], 78)


async def test_an_admin_address_that_cannot_be_had_changes_nothing() -> None:
    world = World()
    world.port.failure = ListenError("cannot listen on x: y")

    assert not (await world.reloader.reload()).done
    assert world.steps == ["prepare"]


async def test_what_is_not_ready_in_time_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.daemon.takes = LIMIT + 1

    report = await world.reloader.reload()

    assert report.problems == ["what is new was not ready within 60 s"]
    assert report.exit_code == 69
    assert world.steps == ["prepare"]


async def test_one_comes_after_the_other(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    world.daemon.takes = 5

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.reloader.reload)
        nursery.start_soon(world.reloader.reload)

    assert [step for step in world.steps if step in ("prepare", "commit")] == ["prepare", "commit"] * 2


async def test_what_ends_is_not_changed_any_more() -> None:
    world = World()
    world.daemon.meanwhile = world.lifecycle.drain

    assert (await world.reloader.reload()).problems == ["dev is draining"]
    assert (await world.reloader.reload()).problems == ["dev is draining"]
    assert world.steps == ["prepare"]


async def test_a_daemon_that_cannot_says_so() -> None:
    world = World()
    world.reloader.daemon = object()

    report = await world.reloader.reload()

    assert report.problems == ["dev cannot take over its file while it runs; restart it"]
    assert report.exit_code == ExitCode.FAILURE
