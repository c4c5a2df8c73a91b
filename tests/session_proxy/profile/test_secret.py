from __future__ import annotations

import pickle

import pytest

from session_proxy.profile.secret import Secret


def test_a_secret_shows_where_it_came_from_and_nothing_else() -> None:
    secret = Secret("env", "NAME", "hunter2")

    assert (repr(secret), f"{secret}") == ("<secret from env NAME>",) * 2
    assert repr(Secret("literal", "", "hunter2")) == "<secret from literal>"
    assert secret.reveal() == "hunter2"


def test_an_error_about_a_secret_does_not_show_it() -> None:
    with pytest.raises(AttributeError) as info:
        Secret("env", "NAME", "hunter2").__setattr__("source", "file")

    assert "hunter2" not in str(info.value)


def test_another_process_gets_it_but_cannot_read_it_anew() -> None:
    secret = Secret("file", "token", "hunter2", again=lambda: "another")

    copy: object = pickle.loads(pickle.dumps(secret))

    assert isinstance(copy, Secret)
    assert (copy, copy.reveal(), copy.again) == (secret, "hunter2", None)
