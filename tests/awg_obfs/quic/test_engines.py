"""Which engine runs a connection."""

from __future__ import annotations

import random

import pytest

from awg_obfs.errors import NarrowPathError
from awg_obfs.quic import engines
from awg_obfs.quic.aioquic_engine import AioquicEngine
from awg_obfs.quic.engines import SHORT, choose_engine, create_engine, settings_after
from awg_obfs.quic.errors import Cause, ConnectionFailure
from awg_obfs.quic.fast_connection import FastConnection
from awg_obfs.quic.settings import SMALLEST_DATAGRAM, EngineKind, QuicSettings
from tests.support.quic_link import LinkEnd, Weather, needs_qh3


@needs_qh3
def test_qh3_runs_short_paths() -> None:
    assert choose_engine(EngineKind.AUTO, SHORT / 2) is EngineKind.QH3


@pytest.mark.parametrize("round_trip", [None, SHORT, 0.2])
def test_aioquic_runs_long_paths_and_those_that_nobody_has_measured(round_trip: float | None) -> None:
    assert choose_engine(EngineKind.AUTO, round_trip) is EngineKind.AIOQUIC_FAST


def test_without_qh3_aioquic_runs_short_paths_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "Qh3Engine", None)
    assert choose_engine(EngineKind.AUTO, 0.0) is EngineKind.AIOQUIC_FAST
    with pytest.raises(ValueError, match="install session-proxy"):
        choose_engine(EngineKind.QH3, 0.0)


def test_without_its_fast_paths_aioquic_runs_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "are_fast_paths_usable", lambda: False)
    assert choose_engine(EngineKind.AUTO, None) is EngineKind.AIOQUIC
    assert choose_engine(EngineKind.AIOQUIC_FAST, None) is EngineKind.AIOQUIC


@needs_qh3
@pytest.mark.parametrize("kind", [EngineKind.AIOQUIC, EngineKind.QH3])
def test_an_engine_that_is_asked_for_runs_any_path(kind: EngineKind) -> None:
    assert {choose_engine(kind, round_trip) for round_trip in (None, 0.0, 1.0)} == {kind}


def test_after_quic_went_wrong_aioquic_takes_over_where_any_engine_will_do() -> None:
    wrong, over = ConnectionFailure(Cause.PROTOCOL), ConnectionFailure(Cause.IDLE)
    anything, chosen = QuicSettings(), QuicSettings(engine=EngineKind.QH3)

    assert settings_after(wrong, anything) == QuicSettings(engine=EngineKind.AIOQUIC_FAST)
    assert settings_after(over, anything) == settings_after(None, anything) == anything
    assert settings_after(wrong, chosen) == chosen


def test_the_path_decides_on_the_engine_and_its_datagrams() -> None:
    path = LinkEnd(Weather(), random.Random(1), round_trip=0.05)
    engine = create_engine(QuicSettings(), path, None)
    assert isinstance(engine, AioquicEngine)
    engine.connect(0.0)
    assert isinstance(engine._quic, FastConnection)
    narrow = LinkEnd(Weather(), random.Random(1), max_datagram_size=SMALLEST_DATAGRAM - 1)
    with pytest.raises(NarrowPathError, match="the path carries 1199"):
        create_engine(QuicSettings(), narrow, None)
