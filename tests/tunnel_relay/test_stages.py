"""Stages follow each other, and the first that fails says what is wrong."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.support.stages import failure_of, outcomes, stage_of
from tunnel_relay.category import Category
from tunnel_relay.errors import SshAuthenticationError, SshError
from tunnel_relay.stages import Course, Outcome, Step, Trouble, TroubleError, explain, split_advice

STEPS = (Step.NAMES, Step.REACH, Step.TLS, Step.SSH)


async def test_all_is_well(autojump_clock: MockClock) -> None:
    course = Course(STEPS)

    async def work() -> None:
        with course.stage(Step.NAMES) as notes:
            await trio.sleep(2)
            notes.find("one")
            notes.find("")
            notes.find("two")
        with course.stage(Step.REACH) as notes:
            notes.warn("it is slow", "move nearer")
            notes.warn("it is old", "buy a new one")
        course.skip(Step.TLS, "there is none")
        with course.stage(Step.SSH):
            pass

    stages = await course.run(work)

    assert outcomes(stages) == {"names": "ok", "reach": "warning", "tls": "skipped", "ssh": "ok"}
    assert (stages[0].found, stages[0].seconds) == ("one, two", 2)
    assert (stages[1].cause, stages[1].fix) == ("it is slow; also, it is old", "move nearer; buy a new one")
    assert stages[2].cause == "there is none"
    assert all(stage.category is None for stage in stages)


async def test_what_comes_after_a_failure_is_skipped() -> None:
    course = Course(STEPS)

    async def work() -> None:
        with course.stage(Step.NAMES):
            pass
        with course.stage(Step.REACH) as notes:
            notes.find("half of it")
            raise SshAuthenticationError("the server took no key (it is strict; so it says); offer another")

    stages = await course.run(work)

    assert outcomes(stages) == {"names": "ok", "reach": "failed", "tls": "skipped", "ssh": "skipped"}
    assert stages[1].cause == "the server took no key (it is strict; so it says)"
    assert (stages[1].fix, stages[1].found) == ("offer another", "half of it")
    assert stages[1].category is Category.AUTHENTICATION
    assert stages[2].cause == "after reach"


async def test_without_advice_there_is_that_of_the_step() -> None:
    course = Course((Step.REACH,))

    async def work() -> None:
        with course.stage(Step.REACH):
            raise TroubleError(Trouble("nobody there"))

    [stage] = await course.run(work)

    assert stage.fix == "check that it runs there, and that firewalls let it through"
    assert stage.category is Category.NETWORK


async def test_a_stage_has_a_limit(autojump_clock: MockClock) -> None:
    course = Course(STEPS)

    async def work() -> None:
        with course.stage(Step.NAMES):
            await trio.sleep(9)
        with course.stage(Step.REACH):
            await trio.sleep(9)
        with course.stage(Step.TLS) as notes:
            notes.find("a beginning")
            notes.advice = "have patience"
            await trio.sleep_forever()

    stages = await course.run(work)

    assert outcomes(stages) == {"names": "ok", "reach": "ok", "tls": "failed", "ssh": "skipped"}
    assert stages[2].cause == "not done within 10 s; so far: a beginning"
    assert stages[2].fix == "have patience"
    assert stages[2].seconds == 10


async def test_what_breaks_in_between_is_told_of_the_next_step() -> None:
    course = Course(STEPS)

    async def work() -> None:
        with course.stage(Step.NAMES):
            pass
        raise SshError("it ended")

    assert failure_of(await course.run(work)).step is Step.REACH


async def test_what_breaks_at_the_end_does_not_matter() -> None:
    course = Course((Step.NAMES,))

    async def work() -> None:
        with course.stage(Step.NAMES):
            pass
        raise SshError("it ended")

    assert stage_of(await course.run(work), Step.NAMES).outcome is Outcome.OK


async def test_bugs_are_let_through() -> None:
    course = Course(STEPS)

    async def work() -> None:
        with course.stage(Step.NAMES):
            raise KeyError("bug")

    with pytest.raises(KeyError):
        await course.run(work)


async def test_whoever_cancels_is_heeded() -> None:
    course = Course(STEPS)

    async def work() -> None:
        with course.stage(Step.NAMES):
            scope.cancel()
            await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope:
        await course.run(work)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ("a", "")),
        ("a; b", ("a", "b")),
        ("a; b; c", ("a", "b; c")),
        ("a (b; c); d", ("a (b; c)", "d")),
        ("a (b; c)", ("a (b; c)", "")),
        ("a) b; c", ("a) b", "c")),
    ],
)
def test_advice_stands_behind_a_semicolon(text: str, parts: tuple[str, str]) -> None:
    assert split_advice(text) == parts


@pytest.mark.parametrize(
    ("exc", "cause"),
    [
        (trio.BrokenResourceError(), "the connection broke"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (FileNotFoundError(2, "No such file or directory", "ca.pem"), "ca.pem: No such file or directory"),
        (SshError("it ended; begin anew"), "it ended"),
    ],
)
def test_what_exceptions_say(exc: Exception, cause: str) -> None:
    assert explain(exc).cause == cause
