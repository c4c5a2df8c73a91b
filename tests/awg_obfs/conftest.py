from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from awg_obfs import devices


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Time that passes by itself when everybody waits, though not while datagrams are on their way in the kernel.

    Handshakes bear it too: two of them 5 s apart do not look like one that is replayed.
    """

    class Time:
        @staticmethod
        def time_ns() -> int:
            return int((1_700_000_000 + trio.current_time()) * 1e9)

    monkeypatch.setattr(devices, "time", Time)
    return MockClock(autojump_threshold=0.002)
