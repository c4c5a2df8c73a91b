"""Ask the person at the terminal for the passphrases of keys, each once."""

from __future__ import annotations

import getpass
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs


@attrs.define(eq=False, repr=False)
class TerminalPassphrases:
    """Asks on the terminal where there is one, and remembers the answers while the process lives.

    Upstreams share one of these, so that a key used by several is asked for once, and no two questions are on
    the screen at the same time.
    """

    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _answers: dict[Path, str] = attrs.field(factory=dict[Path, str], init=False)

    def asker(self, key: Path) -> Callable[[], str] | None:
        """Return what asks for the passphrase of *key*, blocking; `None` where there is nobody to ask."""
        return partial(self._ask, key) if sys.stdin is not None and sys.stdin.isatty() else None

    def _ask(self, key: Path) -> str:
        with self._lock:
            if key not in self._answers:
                self._answers[key] = getpass.getpass(f"Passphrase of {key}: ")
            return self._answers[key]
