"""The relay of the benchmarks carries what is measured, by every way that there is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from benchmarks.arena import Arena, FailedError
from benchmarks.contestants import AbsentError
from benchmarks.measures import QUICK
from benchmarks.relay import scaled
from benchmarks.relay_contestants import MODES, STARTS, RelayContestant, find, ours
from benchmarks.relay_measures import PARTS, Library, of_library, spent, used
from benchmarks.relay_site import RelaySite, open_library, open_site
from benchmarks.tournament import play

KIB = 1 << 10


@pytest.fixture
async def site(arena: Arena, tmp_path: Path) -> AsyncGenerator[RelaySite]:
    try:
        async with open_site(tmp_path, arena.targets) as opened:
            yield opened
    except AbsentError as exc:
        pytest.skip(str(exc))


@pytest.fixture
async def library(site: RelaySite) -> AsyncGenerator[Library]:
    async with open_library(site) as (load, pid):
        opened = Library(site, load, pid)
        await opened.ask("setups", count=1)
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("name", MODES)
async def test_bytes_arrive_through_the_relay(arena: Arena, site: RelaySite, name: str) -> None:
    async with ours(arena, site, name) as contestant:
        assert isinstance(contestant, RelayContestant)
        before = used(dict(contestant.parts))
        assert await arena.download(contestant, 256 * KIB, 4, checked=True) > 0
        assert await arena.upload(contestant, 256 * KIB, 4, checked=True) > 0
        assert await arena.connect_rate(contestant, 32) > 1
        assert set(spent(before, used(dict(contestant.parts)), 1)) == set(PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTS)
async def test_bytes_arrive_by_the_ways_of_others(arena: Arena, site: RelaySite, name: str) -> None:
    try:
        async with STARTS[name](arena, site) as contestant:
            assert contestant.name == name
            assert await arena.download(contestant, 256 * KIB, 4, checked=True) > 0
    except AbsentError as exc:
        pytest.skip(str(exc))


@pytest.mark.slow
async def test_the_library_asks_opens_and_connects(arena: Arena, library: Library) -> None:
    scale = scaled(QUICK)
    rows, failures = await play(arena, [RelayContestant("sproxy", None)], of_library(library), scale)
    assert not failures
    rates = {row.measure: row.median("sproxy") for row in rows if row.figure.name == "rate"}
    assert set(rates) == {"streams opened", "requests", "requests of high priority"}
    assert all(rates.values())


@pytest.mark.slow
@pytest.mark.parametrize("do", ["hold_streams", "hold_clients", "hold_agents"])
async def test_many_are_held(library: Library, do: str) -> None:
    async with library.held(do, 20) as answer:
        assert answer["count"] == 20
    # It obeys again.
    async with library.held(do, 2) as answer:
        assert answer["count"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("who", ["client", "agent"])
async def test_a_stream_goes_on_after_a_cut(library: Library, who: str) -> None:
    answer = await library.ask("resume", count=1, who=who)
    assert 0 < answer["p50"] <= answer["p95"] <= answer["most"]


@pytest.mark.slow
async def test_what_goes_wrong_is_a_failure(library: Library) -> None:
    await library.site.stop_server()
    (library.site.folder / "outbox.db").mkdir()
    with pytest.raises(FailedError, match=r"requests: .*outbox\.db"):
        await library.ask("requests", count=1, high=True)


async def test_a_peer_that_is_not_there_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHISEL", raising=False)
    with pytest.raises(AbsentError, match="chisel is neither on the path nor named by CHISEL"):
        find("chisel", "CHISEL")
    monkeypatch.setenv("CHISEL", "/opt/chisel")
    assert find("chisel", "CHISEL") == "/opt/chisel"
