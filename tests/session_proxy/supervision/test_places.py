from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.supervision.places import control_path, fleet_dir, service_name, state_dir


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("config", "config"),
        ("i-0123", "i-0123"),
        ("tag:Role=bastion", "tag-Role-bastion"),
        ("my profile", "my-profile"),
        ("../../etc/passwd", "etc-passwd"),
        ("…", "default"),
        ("", "default"),
    ],
)
def test_a_name_is_fit_for_a_file(text: str, name: str) -> None:
    assert service_name(text) == name


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/1", "HOME": "/h"}, "/run/user/1/session-proxy/a.sock"),
        ({"XDG_STATE_HOME": "/state", "HOME": "/h"}, "/state/session-proxy/a.sock"),
        ({"HOME": "/h"}, "/h/.local/state/session-proxy/a.sock"),
        ({"HOME": "/h", "XDG_RUNTIME_DIR": ""}, "/h/.local/state/session-proxy/a.sock"),
    ],
)
def test_the_control_socket_is_in_the_runtime_folder_or_else_with_the_state(
    environ: dict[str, str], path: str
) -> None:
    assert control_path("a", environ) == Path(path)


def test_without_a_home_variable_the_account_knows() -> None:
    assert state_dir({}) == Path.home() / ".local/state/session-proxy"


def test_workers_have_a_folder_that_is_no_socket() -> None:
    folder = fleet_dir("a b", {"XDG_RUNTIME_DIR": "/run/user/1"})
    assert folder == Path("/run/user/1/session-proxy/a-b.workers")
