"""Who may reach the control socket, and what becomes of one that is already there."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from session_proxy.errors import ListenError, NameTakenError
from session_proxy.supervision.control_socket import BACKLOG, find_listener, open_control_socket


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session-proxy" / "dev.sock"


@pytest.fixture
def stale(path: Path) -> Path:
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_the_owner_reaches_it_and_it_goes_with_its_block(path: Path) -> None:
    with open_control_socket(path) as listener:
        assert (mode(path.parent), mode(path)) == (0o700, 0o600)
        async with await trio.open_unix_socket(str(path)), await listener.accept():
            pass

    assert find_listener(path) is None
    assert not list(path.parent.iterdir())


def test_a_folder_that_others_could_enter_is_closed_to_them(path: Path) -> None:
    path.parent.mkdir(0o755)

    with open_control_socket(path):
        assert mode(path.parent) == 0o700


def test_a_socket_that_nobody_listens_on_is_replaced(stale: Path) -> None:
    assert find_listener(stale) is None

    with open_control_socket(stale):
        assert find_listener(stale) == f"process {os.getpid()}"


def test_a_file_that_is_no_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir(0o700)
    path.write_text("")

    with open_control_socket(path):
        assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_running_process_keeps_its_socket_and_is_named(path: Path) -> None:
    with open_control_socket(path):
        says = rf'"dev" runs already \(process {os.getpid()}\); end it, or give this one another --name'
        with pytest.raises(NameTakenError, match=says), open_control_socket(path):
            raise AssertionError
        assert find_listener(path) is not None, "the attempt did it no harm"


def test_a_process_with_a_full_queue_is_running_too(path: Path) -> None:
    with open_control_socket(path):
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(2 * BACKLOG)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(str(path))

        assert find_listener(path) == "another process"
        for client in waiting:
            client.close()


def test_a_socket_that_somebody_else_put_there_is_left_alone(path: Path) -> None:
    with open_control_socket(path):
        path.unlink()
        path.write_text("another's")

    assert path.read_text() == "another's"


def test_a_path_that_no_socket_can_have_is_explained(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100) / "dev.sock"
    with pytest.raises(ListenError, match="set XDG_RUNTIME_DIR"), open_control_socket(path):
        raise AssertionError


def test_a_folder_of_somebody_else_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: path.parent.stat().st_uid + 1)

    with pytest.raises(ListenError, match="belongs to somebody else"), open_control_socket(path):
        raise AssertionError


def test_a_folder_that_cannot_be_made_is_the_callers_to_judge(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    path = tmp_path / "file" / "session-proxy" / "dev.sock"
    with pytest.raises(NotADirectoryError), open_control_socket(path):
        raise AssertionError
