"""Which relay a command means."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.errors import ProfileError
from session_proxy.profile.model import Profile, RelayEndpoint, RelayUpstream, SshUpstream
from session_proxy.profile.relay_choice import choose_relay, relay_of_options
from session_proxy.profile.secret import Secret
from session_proxy.target import Target
from tests.support.relay_tokens import make_certificate, make_token


def relay(agent: str | None = None) -> RelayUpstream:
    return RelayUpstream(
        endpoints=(RelayEndpoint(url="wss://relay.example.com"),),
        token=Secret("literal", "", "x.y.z"),
        agent=agent,
    )


SSH = SshUpstream(address=Target.of("gate.example.com", 22))


def test_the_only_relay_needs_no_name() -> None:
    profile = Profile(upstreams={"gate": SSH, "home": relay("nas")})
    assert choose_relay(profile, None, "pi").name == "home"


def test_of_several_the_one_that_leads_to_the_agent_is_meant() -> None:
    profile = Profile(upstreams={"home": relay("nas"), "office": relay("pi"), "any": relay()})
    assert choose_relay(profile, None, "pi").name == "office"
    assert choose_relay(profile, "home", "pi").name == "home"
    for agent in ("printer", None):
        with pytest.raises(
            ProfileError, match="several of kind relay; name one by --upstream: home, office, any"
        ):
            choose_relay(profile, None, agent)


def test_what_is_no_relay_is_told() -> None:
    profile = Profile(upstreams={"gate": SSH, "home": relay()}, file=Path("profile.toml"))
    with pytest.raises(
        ProfileError, match=r"upstreams\.gate: is not of kind relay; name one by --upstream: home"
    ):
        choose_relay(profile, "gate", None)
    with pytest.raises(ProfileError, match=r"upstreams\.hom: is not there"):
        choose_relay(profile, "hom", None)
    with pytest.raises(ProfileError, match="has no upstream of kind relay"):
        choose_relay(Profile(upstreams={"gate": SSH}), None, None)


def test_options_make_one(tmp_path: Path) -> None:
    token, ca = tmp_path / "token", tmp_path / "cert.pem"
    token.write_text(make_token("alice"))
    make_certificate().write(tmp_path)
    urls = ["wss://a.example.com", "ws://127.0.0.1:80"]
    made = relay_of_options(urls, token, ca, {})
    assert made.name == "relay"
    assert [each.url for each in made.upstream.endpoints] == urls
    assert (made.upstream.ca, made.upstream.agent) == (ca, None)
    assert made.upstream.token.reveal() == token.read_text()


def test_every_wrong_option_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as caught:
        relay_of_options(["http://a", "ws://a.example.com"], tmp_path / "none", tmp_path / "ca", {})
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in sorted(lines)] == [
        "--ca",
        "--endpoint",
        "--endpoint",
        "--token-file",
    ]
