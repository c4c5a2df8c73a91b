from __future__ import annotations

import pytest

from session_proxy.lab import authorized_keys
from session_proxy.lab.authorized_keys import AuthorizedKeys, InvalidPublicKeyError, parse_public_key

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"
BLOB = parse_public_key(LINE)


@pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-ed25519 !", LINE.replace("ssh-ed25519", "ssh-rsa")])
def test_what_is_no_public_key_is_refused(line: str) -> None:
    with pytest.raises(InvalidPublicKeyError):
        parse_public_key(line)


def test_the_labs_own_key_logs_anybody_in() -> None:
    keys = AuthorizedKeys()
    assert not keys.allows("me", BLOB, 0.0)
    keys.add(LINE)

    assert keys.allows("me", BLOB, 1e9)


def test_a_pushed_key_logs_its_user_in_for_a_minute() -> None:
    keys = AuthorizedKeys()
    keys.push("me", LINE, 100.0)

    assert keys.allows("me", BLOB, 159.9)
    assert not keys.allows("me", BLOB, 160.0)
    assert not keys.allows("you", BLOB, 100.0)


def test_pushed_keys_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorized_keys, "MOST_PUSHED", 2)
    keys = AuthorizedKeys()
    for user in ("a", "b", "c"):
        keys.push(user, LINE, 0.0)

    assert [keys.allows(user, BLOB, 1.0) for user in ("a", "b", "c")] == [False, True, True]
