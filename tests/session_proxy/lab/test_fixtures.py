from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.lab.world import LabSettings, World


async def test_a_test_gets_a_world_in_a_folder_of_its_own(world: World, tmp_path: Path) -> None:
    assert world.directory == tmp_path / "lab"
    assert world.profile.exists()
    assert world.faults.drop_output == 0


class TestPaced:
    """A class, or a module, may want another lab."""

    @pytest.fixture
    def lab_settings(self) -> LabSettings:
        return LabSettings(pace=True, instances=())

    async def test_settings_can_be_overridden(self, world: World) -> None:
        assert world.instances == {}
