"""The figures of a client."""

from __future__ import annotations

import pytest

from tunnel_relay.category import Category
from tunnel_relay.client.figures import CATEGORIES, RECENT, Figures, Latency
from tunnel_relay.protocol.requests import Status


def test_nothing_is_known_before_the_first_request() -> None:
    figures = Figures()
    assert (figures.success_rate, figures.latency(), figures.errors) == (None, None, {})


def test_percentiles_are_those_of_the_last_requests() -> None:
    figures = Figures()
    for _ in range(RECENT):
        figures.answered(Status.DONE, 1000.0)
    for number in range(1, RECENT + 1):
        figures.answered(Status.DONE, number / 1000)
    latency = figures.latency()
    assert latency is not None
    assert latency.average == pytest.approx(0.5005)
    assert (latency.p95, latency.p99) == (0.95, 0.99)


def test_of_one_request_all_figures_are_the_same() -> None:
    figures = Figures()
    figures.answered(Status.DONE, 0.25)
    assert figures.latency() == Latency(0.25, 0.25, 0.25)


def test_what_was_not_done_counts_by_its_kind() -> None:
    figures = Figures()
    figures.answered(Status.DONE, 0.1)
    figures.answered(Status.REFUSED, 0.1)
    figures.answered(Status.TIMED_OUT, 0.1)
    figures.lost(Category.SERVER)
    figures.trouble(Category.NETWORK)
    assert figures.success_rate == 0.25
    assert figures.errors == {Category.NETWORK: 3, Category.SERVER: 1}


def test_every_status_but_done_is_trouble_of_some_kind() -> None:
    assert CATEGORIES.keys() == set(Status) - {Status.DONE}
