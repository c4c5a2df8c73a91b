from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.profile.model import Aws, Profile, Ssh, SshUpstream, SsmPortUpstream, SsmUpstream, Upstream
from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import SecretSources
from session_proxy.profile.structuring import Structurer
from session_proxy.profile.upstream_checks import check_upstream
from session_proxy.target import Target

KEY = Secret("literal", "", "x")


@pytest.mark.parametrize(
    "upstream",
    [
        SsmUpstream(instances=("i-1", "mi-0a", "tag:Role=bastion", "tag:a:b=c=d", "name:web 1")),
        SsmUpstream(instances=("i-1",), aws=Aws(region="eu-west-1", access_key=KEY, secret_key=KEY)),
        SsmUpstream(instances=("i-1",), aws=Aws(profile="p", region="us-gov-west-1")),
        SsmUpstream(instances=("i-1",), ssh=Ssh(user="u", key="instance-connect")),
        SsmPortUpstream(instances=("name:a",)),
        SshUpstream(address=Target.parse("b:22"), ssh=Ssh(key="/k", passphrase=KEY)),
    ],
)
def test_good_upstreams(upstream: Upstream) -> None:
    notes = Structurer(SecretSources(Path(), {}), {})
    check_upstream("upstreams.a", upstream, notes)

    assert notes.problems == []


def test_a_port_that_nobody_wrote_contradicts_nothing() -> None:
    notes = Structurer(SecretSources(Path(), {}), {})
    check_upstream("upstreams.a", SshUpstream(address=Target.parse("b:2222")), notes)
    assert notes.problems == []


@pytest.mark.parametrize(("port", "problems"), [(22, 1), (2222, 0)])
def test_a_port_beside_that_of_the_address_has_to_be_the_same(port: int, problems: int) -> None:
    """22 too: it is the default, but here somebody wrote it."""
    notes = Structurer(SecretSources(Path(), {}), {})
    data = {"upstreams": {"a": {"kind": "ssh", "address": "b:2222", "ssh": {"port": port}}}}
    profile = notes.structure(data, Profile)
    assert profile is not None
    check_upstream("upstreams.a", profile.upstreams["a"], notes)
    assert [problem.path for problem in notes.problems] == ["upstreams.a.ssh.port"] * problems


def test_what_is_broken_already_is_not_reported_twice() -> None:
    """A value that could not be read looks absent, which is no problem of its own."""
    notes = Structurer(SecretSources(Path(), {}), {})
    notes.note("upstreams.a.aws.access_key", "is a number", "write text")
    check_upstream("upstreams.a", SsmUpstream(instances=("i-1",), aws=Aws(region="r", secret_key=KEY)), notes)

    assert len(notes.problems) == 1
