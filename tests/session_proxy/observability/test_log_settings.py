from __future__ import annotations

import logging

from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings


def test_levels_are_those_of_the_standard_library() -> None:
    known = logging.getLevelNamesMapping()

    assert [known[level.value.upper()] for level in LogLevel] == [10, 20, 30, 40]


def test_people_come_first() -> None:
    assert LogSettings() == LogSettings(log_format=LogFormat.TEXT, level=LogLevel.INFO, colour=False)
