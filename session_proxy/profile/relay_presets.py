"""Predefined defaults for ``relay.toml``, one of which its ``profile`` chooses: what the file says goes over them.

``production`` is what a server on the Internet needs. ``development`` is for one machine and few people: nothing is
scarce, nobody has to wait, and every feature can be tried. ``high-throughput`` is for a machine that does nothing else.
The numbers of the last two are guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

import attrs

from session_proxy.profile.relay_model import (
    MIB,
    Feature,
    PresetName,
    RelayLimits,
    RelayMode,
    RelayPool,
    TierConfig,
)

ALL_MODES: tuple[RelayMode, ...] = get_args(RelayMode)
ALL_FEATURES: tuple[Feature, ...] = get_args(Feature)

FREE = TierConfig()
PREMIUM = TierConfig(
    requests_per_minute=1000.0,
    opens_per_second=200.0,
    connections=50,
    sessions=100,
    streams=2048,
    modes=ALL_MODES,
    features=("requests", "compression", "agent-pools"),
)
ENTERPRISE = TierConfig(
    requests_per_minute=10_000.0,
    opens_per_second=1000.0,
    connections=500,
    sessions=1000,
    streams=16384,
    modes=ALL_MODES,
    features=ALL_FEATURES,
)
AMPLE = TierConfig(
    requests_per_minute=1_000_000.0,
    opens_per_second=10_000.0,
    connections=1000,
    sessions=1000,
    streams=16384,
    modes=ALL_MODES,
    features=ALL_FEATURES,
)


@attrs.frozen(kw_only=True)
class Preset:
    """Defaults that belong together.

    Attributes:
      limits: Bounds of the server.
      pool: How the relay's SSH connections are kept.
      tiers: What users may do; a file may add others.

    """

    limits: RelayLimits
    pool: RelayPool
    tiers: Mapping[str, TierConfig]


def _times(tier: TierConfig, factor: int) -> TierConfig:
    return attrs.evolve(
        tier,
        requests_per_minute=tier.requests_per_minute * factor,
        opens_per_second=tier.opens_per_second * factor,
        connections=tier.connections * factor,
        sessions=tier.sessions * factor,
        streams=tier.streams * factor,
    )


TIERS = {"free": FREE, "premium": PREMIUM, "enterprise": ENTERPRISE}

PRESETS: Mapping[PresetName, Preset] = {
    "production": Preset(limits=RelayLimits(), pool=RelayPool(), tiers=TIERS),
    "development": Preset(
        # A debugger may hold anybody up.
        limits=RelayLimits(
            connections=1000,
            memory=256 * MIB,
            upgrades_per_minute=100_000.0,
            upgrade_burst=10_000,
            handshake=60.0,
            drain=1.0,
        ),
        pool=RelayPool(warm=0, idle=60.0),
        tiers=dict.fromkeys(TIERS, AMPLE),
    ),
    "high-throughput": Preset(
        limits=RelayLimits(
            connections=100_000,
            memory=8192 * MIB,
            upgrades_per_minute=6000.0,
            upgrade_burst=2000,
            drain=30.0,
        ),
        pool=RelayPool(warm=3, idle=1800.0),
        tiers={name: _times(tier, 10) for name, tier in TIERS.items()},
    ),
}


def as_document(preset: Preset) -> dict[str, object]:
    """Return *preset* as a file would say it."""
    return {
        "limits": _table(preset.limits),
        "pool": _table(preset.pool),
        "tiers": {name: _table(tier) for name, tier in preset.tiers.items()},
    }


def lay_over(document: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Return *document* with *defaults* where it says nothing, tables within tables too."""
    merged = {**defaults, **document}
    for key, value in merged.items():
        below = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = lay_over(cast("Mapping[str, object]", value), cast("Mapping[str, object]", below))
    return merged


def _table(values: RelayLimits | RelayPool | TierConfig) -> dict[str, object]:
    table: dict[str, object] = attrs.asdict(values)
    return {
        key: list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value
        for key, value in table.items()
    }
