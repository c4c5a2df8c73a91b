"""The project's chores: ``nox`` runs lint, types and tests; ``nox -s cover peers bench`` the long ones.

They run in the environment that nox itself is installed in, together with the extras ``dev`` and ``fast``: one
installation serves them all.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

HERE = Path(sys.executable).parent


def run_module(session: nox.Session, module: str, *arguments: str) -> None:
    """Run ``python -m MODULE ARGUMENTS``."""
    session.run(sys.executable, "-m", module, *arguments, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and the import contracts."""
    run_module(session, "ruff", "check", ".")
    run_module(session, "ruff", "format", "--check", ".")
    session.run(str(HERE / "lint-imports"), "--no-cache", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    run_module(session, "pyright", "--pythonpath", sys.executable)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the suite, on two cores."""
    run_module(session, "pytest", "-q", "-n", "2", "--dist", "loadfile", "--durations=15", *session.posargs)


@nox.session
def cover(session: nox.Session) -> None:
    """Run the suite with branch coverage: at least 90 % (pyproject.toml)."""
    run_module(session, "coverage", "erase")
    run_module(
        session, "coverage", "run", "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *session.posargs
    )
    run_module(session, "coverage", "combine", "--quiet")
    run_module(session, "coverage", "report", "--skip-covered", "--show-missing", "--sort=cover")


@nox.session
def peers(session: nox.Session) -> None:
    """Run what takes minutes: soaks, 1 GiB transfers, long fuzzing, and real programs."""
    run_module(session, "pytest", "-m", "slow", "--timeout", "600", "--durations=10", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against named peers in one interleaved run; pass ``-- --quick`` for a short one."""
    run_module(session, "benchmarks", *(session.posargs or ["all"]))
