from __future__ import annotations

from typing import get_args

import attrs

from session_proxy.profile.relay_model import PresetName, RelayLimits, RelayPool
from session_proxy.profile.relay_policy import tier_of
from session_proxy.profile.relay_presets import PRESETS, as_document, lay_over
from tunnel_relay.policy.access import ENTERPRISE, FREE, PREMIUM


def test_every_name_has_its_defaults() -> None:
    assert tuple(PRESETS) == get_args(PresetName)
    for preset in PRESETS.values():
        assert set(preset.tiers) == {"free", "premium", "enterprise"}


def test_production_is_what_the_reference_says() -> None:
    production = PRESETS["production"]

    assert (production.limits, production.pool) == (RelayLimits(), RelayPool())
    assert [tier_of(name, tier) for name, tier in production.tiers.items()] == [FREE, PREMIUM, ENTERPRISE]


def test_a_development_server_holds_nobody_up() -> None:
    production, development = PRESETS["production"], PRESETS["development"]

    assert development.limits.handshake > production.limits.handshake
    assert development.limits.drain < production.limits.drain
    for tier in development.tiers.values():
        assert set(tier.modes) == {"end-to-end", "relay-ssh"}
        assert tier.requests_per_minute > production.tiers["enterprise"].requests_per_minute


def test_high_throughput_is_more_of_everything_and_no_more_features() -> None:
    production, high = PRESETS["production"], PRESETS["high-throughput"]

    assert high.limits.connections > production.limits.connections
    assert high.limits.memory > production.limits.memory
    for name, tier in high.tiers.items():
        ordinary = production.tiers[name]
        assert (tier.modes, tier.features) == (ordinary.modes, ordinary.features)
        assert tier.streams > ordinary.streams
        assert tier.ssh_connections == 3


def test_what_a_preset_says_could_stand_in_a_file() -> None:
    document = as_document(PRESETS["production"])

    assert set(document) == {"limits", "pool", "tiers"}
    assert document["limits"] == attrs.asdict(RelayLimits())
    assert isinstance(document["tiers"], dict)
    assert document["tiers"]["free"]["modes"] == ["end-to-end"]


def test_a_document_goes_over_defaults_table_by_table() -> None:
    defaults: dict[str, object] = {"a": {"b": 1, "c": {"d": 2}}, "e": 3, "f": {"g": 4}}

    assert lay_over({"a": {"c": {"d": 5, "x": 6}}, "f": 7, "y": {}}, defaults) == {
        "a": {"b": 1, "c": {"d": 5, "x": 6}},
        "e": 3,
        "f": 7,
        "y": {},
    }
    assert defaults == {"a": {"b": 1, "c": {"d": 2}}, "e": 3, "f": {"g": 4}}
