"""What the relay enforces, made of what ``relay.toml`` says."""

from __future__ import annotations

from session_proxy.profile.relay_model import RelayServer, TierConfig
from tunnel_relay.policy.access import Access, Feature, Held, Mode, Tier
from tunnel_relay.policy.breaker import BreakerSettings
from tunnel_relay.policy.rate import Rate, RateLimits, Rates

MINUTE = 60.0


def access_of(server: RelayServer) -> Access:
    """Return what the users of each tier may do."""
    return Access(tuple(tier_of(name, tier) for name, tier in server.tiers.items()))


def tier_of(name: str, tier: TierConfig) -> Tier:
    """Return the *tier* that tokens call *name*."""
    return Tier(
        name=name,
        modes=frozenset(map(Mode, tier.modes)),
        features=frozenset(map(Feature, tier.features)),
        rates=Rates(requests=Rate(tier.requests_per_minute, MINUTE), opens=Rate(tier.opens_per_second, 1.0)),
        most={
            Held.CONNECTIONS: tier.connections,
            Held.SESSIONS: tier.sessions,
            Held.STREAMS: tier.streams,
            Held.SSH_CONNECTIONS: tier.ssh_connections,
        },
    )


def rate_limits_of(server: RelayServer) -> RateLimits:
    """Return how often users and addresses may ask for something: whoever has an unknown tier, as `access_of` says."""
    access = access_of(server)
    limits = server.limits
    per_address = Rate(limits.upgrades_per_minute, MINUTE, limits.upgrade_burst)
    return RateLimits(access.rates(), access.tier(access.default).rates, per_address)


def breaker_settings_of(server: RelayServer) -> BreakerSettings:
    """Return when to stop trying a destination."""
    breaker = server.breaker
    return BreakerSettings(failures=breaker.failures, recovery=breaker.recovery, trials=breaker.trials)
