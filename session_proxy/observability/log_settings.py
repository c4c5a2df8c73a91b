"""What a person may choose about the log. Light to import, for the command line names these too."""

from __future__ import annotations

import enum

import attrs


class LogFormat(enum.StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """The least important lines that are still written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@attrs.frozen(kw_only=True)
class LogSettings:
    """Format and level of a log; *colour* applies to text."""

    log_format: LogFormat = LogFormat.TEXT
    level: LogLevel = LogLevel.INFO
    colour: bool = False
