"""The project's chores: ``nox`` runs lint, types and tests; ``nox -s peers bench`` the long ones."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and the import contracts."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install("-e", ".[dev,fast]")
    session.run("pyright")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the suite with branch coverage."""
    session.install("-e", ".[dev,fast]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--skip-covered", "--show-missing", "--sort=cover")


@nox.session
def peers(session: nox.Session) -> None:
    """Run what takes minutes: soaks, 1 GiB transfers, long fuzzing, and real programs."""
    session.install("-e", ".[dev,fast]")
    session.run("pytest", "-m", "slow", "--durations=10", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against named peers in one interleaved run; pass ``-- --quick`` for a short one."""
    session.install("-e", ".[dev,fast]")
    session.run("python", "-m", "benchmarks", *(session.posargs or ["all"]))
