from __future__ import annotations

import getpass
import io
import sys
from pathlib import Path

import pytest

from session_proxy.outbound.passphrases import TerminalPassphrases

KEY = Path("/home/me/.ssh/prod.pem")


class Terminal(io.StringIO):
    """A standard input that a person sits at."""

    def isatty(self) -> bool:
        return True


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert TerminalPassphrases().asker(KEY) is None

    monkeypatch.setattr(sys, "stdin", None)
    assert TerminalPassphrases().asker(KEY) is None


def test_each_key_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two upstreams with the same key cost one question, and the repr keeps the answer to itself."""
    questions: list[str] = []

    def answer(prompt: str) -> str:
        questions.append(prompt)
        return "open sesame"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", answer)
    passphrases = TerminalPassphrases()

    for _ in range(2):
        ask = passphrases.asker(KEY)
        assert ask is not None
        assert ask() == "open sesame"

    assert questions == ["Passphrase of /home/me/.ssh/prod.pem: "]
    assert "sesame" not in repr(passphrases)
