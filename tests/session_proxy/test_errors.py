from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy import errors
from session_proxy.errors import (
    DialError,
    ExitCode,
    NotAllowedError,
    Problem,
    ProfileError,
    RefusedError,
    SessionProxyError,
    TransportDownError,
)


def subclasses(cls: type[SessionProxyError]) -> set[type[SessionProxyError]]:
    return {cls}.union(*(subclasses(inner) for inner in cls.__subclasses__()))


def test_a_problem_says_where_what_and_what_to_write() -> None:
    assert str(Problem("limits.idle", "is text", "write a number")) == "limits.idle: is text; write a number"
    assert str(Problem("", "is not UTF-8")) == "is not UTF-8"


def test_a_profile_error_is_a_line_per_problem() -> None:
    problems = [Problem("a", "is wrong", "write b"), Problem("", "not TOML", "check", line=3)]
    error = ProfileError(Path("p.toml"), problems)

    assert str(error) == "p.toml: a: is wrong; write b\np.toml:3: not TOML; check"
    assert str(ProfileError(None, problems[:1])) == "a: is wrong; write b"
    assert error.problems == tuple(problems)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProfileError(None, []), ExitCode.CONFIGURATION),
        (NotAllowedError("no"), ExitCode.NOT_PERMITTED),
        (TransportDownError("down"), ExitCode.UNREACHABLE),
    ],
)
def test_exit_codes(error: SessionProxyError, code: ExitCode) -> None:
    assert error.exit_code is code


def test_only_answers_that_no_other_upstream_changes_are_final() -> None:
    final = {cls for cls in subclasses(DialError) if issubclass(cls, DialError) and cls.final}

    assert {RefusedError, NotAllowedError} <= final
    assert TransportDownError not in final


def test_reasons_tell_failures_apart() -> None:
    """They are a label of metrics and a field of logs."""
    own = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, DialError)]

    reasons = [cls.reason for cls in own]
    assert len(set(reasons)) == len(reasons)


def test_the_tree_in_the_docstring_is_whole() -> None:
    own = [
        cls.__name__ for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)
    ]

    assert [name for name in own if name not in (errors.__doc__ or "")] == []
