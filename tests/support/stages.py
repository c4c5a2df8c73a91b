"""Stages that were made, by name."""

from __future__ import annotations

from collections.abc import Iterable

from tunnel_relay.stages import Outcome, Stage, Step


def outcomes(stages: Iterable[Stage]) -> dict[str, str]:
    """Return how each stage went."""
    return {str(stage.step): str(stage.outcome) for stage in stages}


def stage_of(stages: Iterable[Stage], step: Step) -> Stage:
    """Return that stage."""
    [found] = [stage for stage in stages if stage.step is step]
    return found


def failure_of(stages: Iterable[Stage]) -> Stage:
    """Return the one stage that has failed."""
    [found] = [stage for stage in stages if stage.outcome is Outcome.FAILED]
    return found
