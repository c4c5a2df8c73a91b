from __future__ import annotations

import attrs

from session_proxy.profile.relay_model import NO_JWT, RelayBreaker, RelayLimits, RelayServer, TierConfig
from session_proxy.profile.relay_policy import access_of, breaker_settings_of, rate_limits_of, tier_of
from session_proxy.profile.relay_presets import TIERS
from tunnel_relay.policy.access import Access, Feature, Held, Mode
from tunnel_relay.policy.breaker import BreakerSettings
from tunnel_relay.policy.rate import PER_ADDRESS, Rate, RateLimits

SERVER = RelayServer(jwt=NO_JWT, tiers=TIERS)


def test_without_a_word_it_is_what_the_relay_does_by_itself() -> None:
    assert access_of(SERVER).tiers == Access().tiers
    limits = rate_limits_of(SERVER)
    assert limits.per_address == PER_ADDRESS
    assert (limits.tiers, limits.default) == (Access().rates(), RateLimits({}).default)
    assert breaker_settings_of(SERVER) == BreakerSettings()


def test_a_tier_says_how_often_how_much_and_what() -> None:
    tier = tier_of(
        "gold",
        TierConfig(
            requests_per_minute=5.0,
            opens_per_second=2.0,
            connections=1,
            sessions=2,
            streams=3,
            ssh_connections=1,
            modes=("relay-ssh",),
            features=("compression", "agent-pools"),
        ),
    )

    assert (tier.name, tier.modes) == ("gold", {Mode.RELAY_SSH})
    assert tier.features == {Feature.COMPRESSION, Feature.AGENT_POOLS}
    assert (tier.rates.requests, tier.rates.opens) == (Rate(5.0, 60.0), Rate(2.0, 1.0))
    assert tier.most == {
        Held.CONNECTIONS: 1,
        Held.SESSIONS: 2,
        Held.STREAMS: 3,
        Held.SSH_CONNECTIONS: 1,
    }


def test_a_tier_of_ones_own_is_beside_the_others() -> None:
    access = access_of(attrs.evolve(SERVER, tiers={**TIERS, "gold": TierConfig(streams=7)}))

    assert access.tier("gold").most[Held.STREAMS] == 7
    assert access.tier("silver").name == "free"


def test_addresses_and_breakers_are_as_the_file_says() -> None:
    server = attrs.evolve(
        SERVER,
        limits=RelayLimits(upgrades_per_minute=10.0, upgrade_burst=2),
        breaker=RelayBreaker(failures=1, recovery=2.0, trials=3),
    )

    assert rate_limits_of(server).per_address == Rate(10.0, 60.0, 2)
    assert breaker_settings_of(server) == BreakerSettings(failures=1, recovery=2.0, trials=3)
