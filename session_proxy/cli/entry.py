"""Where ``sproxy`` begins: Ctrl-C while the rest is imported ends it like any other."""

from __future__ import annotations

import sys
from typing import NoReturn

from session_proxy.errors import ExitCode


def main() -> NoReturn:
    """Run ``sproxy``; never returns."""
    try:
        from session_proxy.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    run()
