from __future__ import annotations

import pytest

from session_proxy.lab.demo import DemoRow, run_demo, try_transport
from session_proxy.lab.targets import open_targets

KEYS = {"transport", "ok", "setup_ms", "latency_ms", "mbytes_per_s", "bytes"}


async def test_every_transport_passes() -> None:
    shown: list[DemoRow] = []

    rows = await run_demo(shown.append, amount=300_001)

    assert [row.transport for row in rows] == ["direct", "ssh", "ssm", "ssm-port", "awg", "relay"]
    assert shown == rows
    for row in rows:
        assert row.ok, row.error
        assert row.bytes > 300_001  # the page counts too
        assert row.setup
        assert row.latency
        assert row.rate
        assert set(row.as_json()) == KEYS


async def test_a_transport_that_does_not_work_is_a_row() -> None:
    async with open_targets() as targets:
        nobody = "127.0.0.1:1"

        row = await try_transport("ssm", nobody, targets, {}, 1000)

    assert not row.ok
    assert row.error
    assert row.bytes == 0


def test_a_failed_row_says_why_in_json() -> None:
    row = DemoRow(transport="ssm", error="nobody home")

    assert row.as_json() == {
        "transport": "ssm",
        "ok": False,
        "setup_ms": None,
        "latency_ms": None,
        "mbytes_per_s": None,
        "bytes": 0,
        "error": "nobody home",
    }


def test_units_are_those_that_the_keys_name() -> None:
    row = DemoRow(transport="ssm", ok=True, setup=0.5, latency=0.002, rate=3e6, bytes=7)

    assert row.as_json() == {
        "transport": "ssm",
        "ok": True,
        "setup_ms": 500.0,
        "latency_ms": 2.0,
        "mbytes_per_s": 3.0,
        "bytes": 7,
    }


@pytest.mark.slow
async def test_the_whole_amount_in_time() -> None:
    """64 MiB through each: what ``sproxy demo`` does."""
    rows = await run_demo(lambda _row: None)

    assert all(row.ok and row.bytes > 64 << 20 for row in rows)
