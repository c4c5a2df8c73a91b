from __future__ import annotations

from typing import get_args

from session_proxy.profile.relay_model import Algorithm, Feature, RelayBreaker, RelayMode, TierConfig
from tunnel_relay.policy import access
from tunnel_relay.policy.breaker import BreakerSettings
from tunnel_relay.policy.rate import Rates
from tunnel_relay.protocol.tokens import ALGORITHMS


def test_words_are_those_of_the_relay() -> None:
    assert get_args(Algorithm) == ALGORITHMS
    assert set(get_args(RelayMode)) == {mode.value for mode in access.Mode}
    assert set(get_args(Feature)) == {feature.value for feature in access.Feature}


def test_a_tier_is_the_free_one_where_nothing_is_said() -> None:
    tier = TierConfig()

    assert (tier.requests_per_minute, tier.opens_per_second) == (
        Rates().requests.tokens,
        Rates().opens.tokens,
    )
    assert set(tier.modes) == {mode.value for mode in access.FREE.modes}
    assert set(tier.features) == {feature.value for feature in access.FREE.features}


def test_the_breakers_defaults_are_the_relays() -> None:
    ours, theirs = RelayBreaker(), BreakerSettings()

    assert (ours.failures, ours.recovery, ours.trials) == (theirs.failures, theirs.recovery, theirs.trials)
