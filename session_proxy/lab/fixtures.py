"""The lab as pytest-trio fixtures, for our tests and yours.

In a ``conftest.py``::

    from session_proxy.lab.fixtures import lab_settings, world

    __all__ = ["lab_settings", "world"]

and then in a test::

    async def test_something(world: World) -> None:
        boto3.client("ssm", endpoint_url=world.endpoint, …)
        world.faults.drop_output = 7

Override ``lab_settings`` to get another lab.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_trio

from session_proxy.lab.world import LabSettings, World, open_world


@pytest.fixture
def lab_settings() -> LabSettings:
    """Return how the lab is to be; override it in a module or a class."""
    return LabSettings()


@pytest_trio.trio_fixture  # pyright: ignore[reportUnknownMemberType] - pytest-trio has no types
async def world(tmp_path: Path, lab_settings: LabSettings) -> AsyncGenerator[World]:
    """Open a lab for one test, with its files in ``tmp_path / "lab"``."""
    async with open_world(tmp_path / "lab", lab_settings) as opened:
        yield opened
