from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from session_proxy.lab.retransmission import RoundTrip, SentFrames

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/ssm.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["rto"])
def test_timeouts_are_the_references(vector: dict[str, list[dict[str, float]]]) -> None:
    round_trip = RoundTrip()
    for step in vector["steps"]:
        round_trip.sample(step["sample_ms"] / 1000)
        assert round_trip.rtt == pytest.approx(step["rtt_ns"] / 1e9)
        assert round_trip.timeout == pytest.approx(step["rto_ns"] / 1e9, abs=1e-9)


def test_the_oldest_frame_is_resent_first_and_the_others_after_the_longest_timeout() -> None:
    sent = SentFrames()
    for number in range(3):
        sent.add(number, b"frame %d" % number, 0.0)

    assert sent.overdue(0.2) == []
    sent.acknowledge(1, 0.1)
    assert sent.overdue(0.25) == [b"frame 0"]
    assert sent.overdue(1.0) == [b"frame 0"]
    assert sent.overdue(1.1) == [b"frame 2"]
    sent.acknowledge(9, 1.3)
    sent.acknowledge(0, 1.3)
    # It is the oldest now.
    assert sent.overdue(1.5) == [b"frame 2"]
    sent.acknowledge(2, 1.5)
    assert len(sent) == 0


def test_what_counts_are_the_bytes_from_the_oldest_frame_on() -> None:
    sent = SentFrames()
    for number in range(3):
        sent.add(number, b"frame %d" % number, 0.0)
    spans = [sent.span]
    for number in (1, 0, 2):
        sent.acknowledge(number, 0.1)
        spans.append(sent.span)

    assert spans == [21, 21, 7, 0]


def resent_at(sent: SentFrames, message: bytes) -> list[float]:
    return [tick / 10 for tick in range(600) if message in sent.overdue(tick / 10)]


def test_intervals_double_up_to_a_bound_behind_the_oldest_frame() -> None:
    sent = SentFrames()
    sent.add(0, b"oldest", 0.0)
    sent.add(1, b"frame", 0.0)
    times = resent_at(sent, b"frame")

    gaps = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert gaps == [1, 2, 4, 8, 10, 10, 10, 10]


def test_the_oldest_frame_never_waits_longer_than_the_longest_timeout() -> None:
    sent = SentFrames()
    sent.round_trip.sample(30.0)
    sent.add(0, b"oldest", 0.0)
    times = resent_at(sent, b"oldest")

    assert max(later - earlier for earlier, later in itertools.pairwise(times)) == pytest.approx(1.1)


def test_awss_agent_resends_the_oldest_only() -> None:
    sent = SentFrames(head_only=True)
    sent.add(0, b"head", 0.0)
    sent.add(1, b"next", 0.0)

    assert sent.overdue(1.0) == [b"head"]
    assert sent.overdue(1.05) == []
