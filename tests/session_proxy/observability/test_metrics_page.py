"""The page about metrics is made from the program, and current."""

from __future__ import annotations

from pathlib import Path

from session_proxy.observability.agent_metrics import AGENT_CATALOGUE
from session_proxy.observability.fleet_metrics import FLEET_CATALOGUE
from session_proxy.observability.metrics_page import metrics_page
from session_proxy.observability.relay_metrics import RELAY_CATALOGUE


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"

    assert page.read_text(encoding="utf-8") == "\n".join(metrics_page()) + "\n"


def test_it_names_all() -> None:
    text = "\n".join(metrics_page())

    assert all(f"`{spec.name}`" in text for spec in (*RELAY_CATALOGUE, *AGENT_CATALOGUE, *FLEET_CATALOGUE))
