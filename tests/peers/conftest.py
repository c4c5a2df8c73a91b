from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.programs import Lab, Sproxy, start_lab, start_sproxy


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[Lab]:
    """A lab in a process of its own."""
    with start_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(lab: Lab) -> Generator[Sproxy]:
    """``sproxy run`` with the lab's profile: each target is reached by its transport."""
    with start_sproxy(lab.profile, env=lab.env) as running:
        yield running
