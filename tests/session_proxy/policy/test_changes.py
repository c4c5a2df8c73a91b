from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from session_proxy.policy.changes import Changes, changed_keys, compare, replaced
from session_proxy.policy.rules import Rule
from session_proxy.profile.model import (
    Admin,
    Auth,
    Limits,
    ListenAddress,
    Profile,
    RelayEndpoint,
    RelayUpstream,
    Ssh,
    SshUpstream,
    SsmPortUpstream,
    Upstream,
)
from session_proxy.profile.secret import Secret
from session_proxy.target import Target

BASTION = SshUpstream(address=Target("bastion", 22), startup="required")
SSH = Ssh(user="me", passphrase=Secret("literal", "", "very secret"))


def profile(**upstreams: Upstream) -> Profile:
    return Profile(upstreams=upstreams)


def test_equal_profiles_differ_in_nothing() -> None:
    changes = compare(profile(bastion=BASTION), profile(bastion=attrs.evolve(BASTION)))

    assert not changes
    assert changes == Changes()
    assert changes.lines() == []


def test_where_a_profile_lies_is_no_matter() -> None:
    assert not compare(Profile(), Profile(file=Path("other.toml"), name="other"))


def test_upstreams_come_go_and_change() -> None:
    old = profile(same=BASTION, gone=BASTION, other=attrs.evolve(BASTION, ssh=SSH))
    more = Secret("literal", "", "more secret")
    new = profile(
        same=BASTION, other=attrs.evolve(BASTION, ssh=attrs.evolve(SSH, passphrase=more)), one=BASTION
    )

    changes = compare(old, new)

    assert changes == Changes(added=("one",), removed=("gone",), changed={"other": ("ssh.passphrase",)})
    assert changes.leaving == {"gone", "other"}
    assert changes.coming == ("one", "other")
    assert changes.lines() == [
        "upstream one: new",
        "upstream other: changed (ssh.passphrase)",
        "upstream gone: removed",
    ]


def test_an_upstream_of_another_kind_is_another_one() -> None:
    changes = compare(profile(db=BASTION), profile(db=SsmPortUpstream(instances=("i-1",))))

    assert changes.changed == {"db": ("kind",)}


def test_how_it_is_started_restarts_nothing() -> None:
    changes = compare(profile(a=BASTION), profile(a=attrs.evolve(BASTION, startup="background")))

    assert changes == Changes(settings=("upstreams.a.startup",))
    assert not changes.leaving


def test_what_is_changed_in_place_is_named_by_its_keys() -> None:
    auth = Auth(user="me", password=Secret("literal", "", "secret"))
    old = Profile(auth=auth, limits=Limits(idle=5))
    new = Profile(
        listen=(ListenAddress("127.0.0.1", 1),),
        auth=attrs.evolve(auth, password=Secret("env", "X", "other")),
        admin=Admin(listen=ListenAddress("127.0.0.1", 2)),
        routes=(Rule.of("*", "reject"),),
    )

    changes = compare(old, new)

    assert changes == Changes(listen=True, settings=("auth.pass", "admin", "limits.idle", "routes"))
    assert changes.lines() == ["changed: listen, auth.pass, admin, limits.idle, routes"]


def test_no_value_is_shown() -> None:
    changes = compare(
        profile(a=attrs.evolve(BASTION, ssh=SSH)),
        profile(a=attrs.evolve(BASTION, ssh=Ssh(passphrase=Secret("literal", "", "hidden")))),
    )

    assert "secret" not in f"{changes}{changes.lines()}"
    assert changes.changed == {"a": ("ssh.user", "ssh.passphrase")}


def test_a_secret_that_is_renewed_is_the_same_while_its_source_is() -> None:
    def home(token: Secret) -> Profile:
        return profile(home=RelayUpstream(endpoints=(RelayEndpoint(url="wss://relay"),), token=token))

    old = home(Secret("command", "print-token", "one"))
    assert not compare(old, home(Secret("command", "print-token", "two")))
    assert compare(old, home(Secret("command", "print-another", "two"))).changed == {"home": ("token",)}
    assert compare(old, home(Secret("file", "print-token", "two"))).changed == {"home": ("token",)}
    assert compare(home(Secret("literal", "", "one")), home(Secret("literal", "", "two")))


def test_an_address_is_one_value() -> None:
    moved = attrs.evolve(BASTION, address=Target("bastion", 2222))

    assert list(changed_keys(BASTION, moved)) == ["address"]


@pytest.mark.parametrize(
    ("old", "new", "added", "removed"),
    [
        ("ab", "ab", "", ""),
        ("ab", "ba", "", ""),
        ("ab", "bc", "c", "a"),
        ("a", "aa", "a", ""),
        ("aab", "a", "", "ab"),
    ],
)
def test_lists_are_compared_item_by_item(old: str, new: str, added: str, removed: str) -> None:
    assert replaced(old, new) == (list(added), list(removed))
