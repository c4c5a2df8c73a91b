from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from session_proxy.supervision.status import file_of


@pytest.mark.parametrize(
    ("status", "file"),
    [
        ({"profile": "/etc/dev.toml"}, Path("/etc/dev.toml")),
        ({"file": "/etc/server.toml", "peers": {}}, Path("/etc/server.toml")),
        ({"profile": None}, None),
        ({"file": ""}, None),
        ({"file": 1}, None),
        ({}, None),
    ],
)
def test_a_service_says_which_file_it_runs(status: Mapping[str, object], file: Path | None) -> None:
    assert file_of(status) == file
