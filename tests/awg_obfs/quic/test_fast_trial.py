"""The trial that the fast paths have to pass."""

from __future__ import annotations

from collections.abc import Generator

import aioquic
import pytest

from awg_obfs.quic import fast_trial
from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.fast_trial import are_fast_paths_usable, try_pair
from awg_obfs.quic.windowed import WindowedConnection


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Generator[None]:
    are_fast_paths_usable.cache_clear()
    yield
    are_fast_paths_usable.cache_clear()


def test_the_installed_version_passes() -> None:
    """If this fails, aioquic has a new version: look through awg_obfs/quic/fast_*.py before raising theirs."""
    assert are_fast_paths_usable()
    assert try_pair(FastConnection, FastConnection)


def test_another_version_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioquic, "__version__", "1.7.99")
    assert not are_fast_paths_usable()


def test_a_name_that_has_moved_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(_client: type[WindowedConnection], _server: type[WindowedConnection]) -> bool:
        raise AttributeError

    monkeypatch.setattr(fast_trial, "try_pair", moved)
    assert not are_fast_paths_usable()


def test_data_that_does_not_come_across_fails() -> None:
    class Mute(WindowedConnection):
        def flush(self, now: float) -> list[bytes]:
            return []

    assert not try_pair(Mute, WindowedConnection)
