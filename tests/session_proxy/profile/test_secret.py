from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import SecretSources, reread


def test_a_secret_shows_where_it_came_from_and_nothing_else() -> None:
    secret = Secret("env", "NAME", "hunter2")

    assert (repr(secret), f"{secret}") == ("<secret from env NAME>",) * 2
    assert repr(Secret("literal", "", "hunter2")) == "<secret from literal>"
    assert secret.reveal() == "hunter2"


def test_an_error_about_a_secret_does_not_show_it() -> None:
    with pytest.raises(AttributeError) as info:
        Secret("env", "NAME", "hunter2").__setattr__("source", "file")

    assert "hunter2" not in str(info.value)


def test_another_process_gets_it_and_reads_it_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hunter2")
    secret = SecretSources(tmp_path, os.environ).read("file:token")

    copy: object = pickle.loads(pickle.dumps(secret))
    file.write_text("another")

    assert isinstance(copy, Secret)
    assert (copy, copy.reveal()) == (secret, "hunter2")
    assert reread(copy) == "another"
