"""A diagnosis in stages: each builds upon the one before, and the first that fails says what is wrong.

`Course.run` goes through them. Whatever fails is told as a `Trouble`: the cause, and what to do about it.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import trio

from tunnel_relay.category import Category, category_of
from tunnel_relay.errors import TunnelRelayError

# What the outside can do to a stage, beside what `TroubleError` says. Anything else is a bug.
EXPECTED: tuple[type[Exception], ...] = (TunnelRelayError, OSError, trio.BrokenResourceError)


class Step(enum.StrEnum):
    """The stages, in their order; each kind of connection has some of them."""

    CONFIGURATION = "configuration"
    CREDENTIALS = "credentials"
    NAMES = "names"
    REACH = "reach"
    TLS = "tls"
    HANDSHAKE = "handshake"
    SSH = "ssh"
    ECHO = "echo"


class Outcome(enum.StrEnum):
    """How a stage went, from good to bad but for the first."""

    SKIPPED = "skipped"
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


# Seconds that a stage may take. A command that gives a secret may ask a person to touch a key.
LIMITS: Mapping[Step, float] = {
    Step.CONFIGURATION: 10.0,
    Step.CREDENTIALS: 75.0,
    Step.NAMES: 10.0,
    Step.REACH: 10.0,
    Step.TLS: 10.0,
    Step.HANDSHAKE: 30.0,
    Step.SSH: 30.0,
    Step.ECHO: 20.0,
}

# What helps where nothing more is known.
FIXES: Mapping[Step, str] = {
    Step.CREDENTIALS: "get new ones",
    Step.NAMES: "check the name, and this machine's resolver",
    Step.REACH: "check that it runs there, and that firewalls let it through",
    Step.TLS: "check what listens on that port, and what is in between",
    Step.HANDSHAKE: "check what listens there, and its log",
    Step.SSH: "check the SSH server, and its log",
    Step.ECHO: "check the destination, and the far end's log",
}


@attrs.frozen
class Trouble:
    """What is wrong, what to do about it, and what kind of trouble that is."""

    cause: str
    fix: str = ""
    category: Category = Category.NETWORK


class TroubleError(Exception):
    """A stage has failed, and knows why."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        super().__init__(trouble.cause)


class StageFailedError(Exception):
    """A stage has failed, and that has been noted: the others have no chance."""


@attrs.frozen(kw_only=True)
class Stage:
    """A stage that is over.

    Attributes:
      step: Which one.
      outcome: How it went.
      seconds: How long it took.
      found: What there is, in a few words.
      cause: What is wrong, or strange; why it was skipped.
      fix: What to do about that.
      category: Of a failure: what kind of trouble it is.

    """

    step: Step
    outcome: Outcome
    seconds: float = 0.0
    found: str = ""
    cause: str = ""
    fix: str = ""
    category: Category | None = None


@attrs.define(eq=False)
class Notes:
    """What a stage has to tell, while it runs."""

    step: Step
    began: float
    advice: str = attrs.field(default="", init=False)
    """What to do where it fails without saying why."""
    found: list[str] = attrs.field(factory=list[str], init=False)
    warnings: list[Trouble] = attrs.field(factory=list[Trouble], init=False)

    def find(self, text: str) -> None:
        """Note what there is, where there is something."""
        if text:
            self.found.append(text)

    def warn(self, cause: str, fix: str = "") -> None:
        """Note what works, but is strange."""
        self.warnings.append(Trouble(cause, fix))


def explain(exc: Exception) -> Trouble:
    """Return what *exc* means."""
    said = str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        said = exc.strerror if exc.filename is None else f"{exc.filename}: {exc.strerror}"
    cause, fix = split_advice(said or "the connection broke")
    return Trouble(cause, fix, category_of(exc))


def split_advice(text: str) -> tuple[str, str]:
    """Return the cause and the advice in *text*, which stand on either side of a semicolon where there is advice.

    What stands in brackets belongs to the cause.
    """
    depth = 0
    for position, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth <= 0 and text.startswith("; ", position):
            return text[:position], text[position + 2 :]
    return text, ""


@attrs.define(eq=False)
class Course:
    """Goes through the stages of one connection.

    Attributes:
      steps: Which there are, in their order.
      explain: What an exception means that is among the *expected*.
      expected: What the outside can do to a stage.
      unix_time: The time of day.
      done: The stages that are over.

    """

    steps: Sequence[Step]
    explain: Callable[[Exception], Trouble] = explain
    expected: tuple[type[Exception], ...] = EXPECTED
    unix_time: Callable[[], float] = attrs.field(default=time.time, repr=False)
    done: list[Stage] = attrs.field(factory=list[Stage], init=False)
    notes: Notes | None = attrs.field(default=None, init=False)
    """Of the stage that runs."""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @property
    def left(self) -> list[Step]:
        """The steps that are to come, with the one that is being made."""
        over = {stage.step for stage in self.done}
        return [step for step in self.steps if step not in over]

    @contextmanager
    def stage(self, step: Step) -> Generator[Notes]:
        """Make a *step* in the block, within its limit of time; what goes wrong there is noted.

        Raises:
          StageFailedError: it has failed.

        """
        now = trio.current_time()
        self.notes = notes = Notes(step, now)
        # The block may open what outlives it, so it has no scope of its own.
        self._scope.deadline = now + LIMITS[step]
        try:
            yield notes
        except (TroubleError, *self.expected) as exc:
            self._fail(self._trouble(exc))
            raise StageFailedError from exc
        finally:
            self._scope.deadline = math.inf
        self._end(notes)

    def skip(self, step: Step, why: str) -> None:
        """Note that there is no need for a *step*."""
        self.done.append(Stage(step=step, outcome=Outcome.SKIPPED, cause=why))

    async def run(self, work: Callable[[], Awaitable[None]]) -> tuple[Stage, ...]:
        """Do *work*, which makes the steps, and return what became of all of them."""
        try:
            with self._scope:
                await work()
        except StageFailedError:
            pass
        except (TroubleError, *self.expected) as exc:
            # What a stage has left open broke while the next one ran; or as it was closed, which is no matter.
            if self.left:
                self._fail(self._trouble(exc))
        if self._scope.cancelled_caught and self.notes is not None:
            so_far = f"; so far: {', '.join(self.notes.found)}" if self.notes.found else ""
            self._fail(Trouble(f"not done within {LIMITS[self.notes.step]:g} s{so_far}"))
        failed = next((stage.step for stage in self.done if stage.outcome is Outcome.FAILED), None)
        for step in self.left:
            self.skip(step, f"after {failed}" if failed else "not tried")
        return tuple(sorted(self.done, key=lambda stage: self.steps.index(stage.step)))

    def _trouble(self, exc: Exception) -> Trouble:
        return exc.trouble if isinstance(exc, TroubleError) else self.explain(exc)

    def _fail(self, trouble: Trouble) -> None:
        notes = self.notes or Notes(self.left[0], trio.current_time())
        self.notes = None
        self.done.append(
            Stage(
                step=notes.step,
                outcome=Outcome.FAILED,
                seconds=trio.current_time() - notes.began,
                found=", ".join(notes.found),
                cause=trouble.cause,
                fix=trouble.fix or notes.advice or FIXES.get(notes.step, ""),
                category=trouble.category,
            )
        )

    def _end(self, notes: Notes) -> None:
        self.notes = None
        self.done.append(
            Stage(
                step=notes.step,
                outcome=Outcome.WARNING if notes.warnings else Outcome.OK,
                seconds=trio.current_time() - notes.began,
                found=", ".join(notes.found),
                cause="; also, ".join(warning.cause for warning in notes.warnings),
                fix="; ".join(dict.fromkeys(warning.fix for warning in notes.warnings if warning.fix)),
            )
        )
