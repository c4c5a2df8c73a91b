from __future__ import annotations

import random

from session_proxy.outbound.awg_figures import WINDOW, AwgFigures, Quantiles, SessionFigures, total


def test_nothing_observed_has_no_quantiles() -> None:
    assert Quantiles().values() == {}


def test_one_observation_is_all_of_them() -> None:
    quantiles = Quantiles()
    quantiles.observe(0.25)

    assert quantiles.values() == {0.5: 0.25, 0.95: 0.25, 0.99: 0.25}


def test_quantiles_are_those_of_the_ranks() -> None:
    quantiles = Quantiles()
    numbers = [float(number) for number in range(1, 102)]
    random.Random(1).shuffle(numbers)
    for number in numbers:
        quantiles.observe(number)

    assert quantiles.values() == {0.5: 51.0, 0.95: 96.0, 0.99: 100.0}


def test_what_was_long_ago_is_forgotten() -> None:
    quantiles = Quantiles()
    for _ in range(WINDOW):
        quantiles.observe(9.0)
    for _ in range(WINDOW):
        quantiles.observe(1.0)

    assert set(quantiles.values().values()) == {1.0}


def test_figures_add_up() -> None:
    one = AwgFigures(sessions=(SessionFigures(link="a", up=True),), rejections={"x": 1, "y": 2})
    other = AwgFigures(sessions=(SessionFigures(link="b", up=False),), rejections={"y": 3})

    together = total([one, other])

    assert [session.link for session in together.sessions] == ["a", "b"]
    assert together.rejections == {"x": 1, "y": 5}
    assert total([]) == AwgFigures()
