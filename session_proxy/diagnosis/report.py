"""What a diagnosis found, for people, for programs, and as an exit code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from session_proxy.errors import ExitCode
from tunnel_relay.category import Category
from tunnel_relay.stages import Outcome, Stage

# By what has to be changed: something out there, what one may do, or what is written.
EXIT_CODES: Mapping[Category, ExitCode] = {
    Category.NETWORK: ExitCode.UNREACHABLE,
    Category.SERVER: ExitCode.UNREACHABLE,
    Category.PROTOCOL: ExitCode.UNREACHABLE,
    Category.AUTHENTICATION: ExitCode.NOT_PERMITTED,
    Category.CONFIGURATION: ExitCode.CONFIGURATION,
}

_SEVERITY = (Outcome.SKIPPED, Outcome.OK, Outcome.WARNING, Outcome.FAILED)


@attrs.frozen(kw_only=True)
class Diagnosis:
    """What was found about one connection.

    Attributes:
      name: What the file calls it.
      kind: Its kind, in the file's words.
      via: By which of several ways; "" where there is one.
      stages: What became of each.

    """

    name: str
    kind: str
    via: str = ""
    stages: tuple[Stage, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """How its worst stage went; those that were skipped do not count."""
        found = [stage.outcome for stage in self.stages]
        return max((Outcome.OK, *found), key=_SEVERITY.index)

    @property
    def exit_code(self) -> ExitCode:
        """What it means for the whole: 0 where it works."""
        codes = (EXIT_CODES[stage.category] for stage in self.stages if stage.category is not None)
        return max(codes, default=ExitCode.OK)

    def as_json(self) -> dict[str, object]:
        """Return all of it, as plain values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "via": self.via,
            "outcome": str(self.outcome),
            "stages": [_stage_as_json(stage) for stage in self.stages],
        }


def _stage_as_json(stage: Stage) -> dict[str, object]:
    return {
        "stage": str(stage.step),
        "outcome": str(stage.outcome),
        "milliseconds": round(stage.seconds * 1e3, 1),
        "found": stage.found,
        "cause": stage.cause,
        "fix": stage.fix,
        "category": None if stage.category is None else stage.category.value,
    }


def worst(diagnoses: Iterable[Diagnosis]) -> ExitCode:
    """Return what to exit with."""
    return max((each.exit_code for each in diagnoses), default=ExitCode.OK)


def render(diagnosis: Diagnosis) -> list[str]:
    """Return the lines that a person reads: a line for each stage."""
    via = f", {diagnosis.via}" if diagnosis.via else ""
    verdicts = VERDICTS if diagnosis.kind not in FILES else FILE_VERDICTS
    lines = [f"{diagnosis.name} ({diagnosis.kind}{via}): {verdicts[diagnosis.outcome]}"]
    for stage in diagnosis.stages:
        took = "" if stage.outcome is Outcome.SKIPPED else f"{stage.seconds * 1e3:.0f} ms"
        said = "; ".join(filter(None, _parts(stage)))
        lines.append(f"  {stage.step:<13}  {stage.outcome:<7}  {took:>8}  {said}".rstrip())
    return lines


VERDICTS: Mapping[Outcome, str] = {
    Outcome.SKIPPED: "works",
    Outcome.OK: "works",
    Outcome.WARNING: "works, but",
    Outcome.FAILED: "does not work",
}

# Of these nothing is known but what is written.
FILES = ("file", "awg-server", "relay-server")
FILE_VERDICTS: Mapping[Outcome, str] = {
    Outcome.SKIPPED: "good",
    Outcome.OK: "good",
    Outcome.WARNING: "good, but",
    Outcome.FAILED: "cannot be used",
}


def _parts(stage: Stage) -> tuple[str, ...]:
    """Return what is told of a stage: what is wrong comes first."""
    if stage.outcome is Outcome.FAILED:
        return (stage.cause, stage.fix)
    return (stage.found, stage.cause, stage.fix)
