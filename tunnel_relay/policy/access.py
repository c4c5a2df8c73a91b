"""What users may do by their tier: which modes and features, how often, and how much at a time.

The tier stands in the token. One without a tier, or with a tier that this server does not know, gets what the default
one gives, which should be the least: a misspelt tier opens nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from tunnel_relay.policy.rate import Rate, Rates
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.multiplexer import Reason


class Feature(enum.Enum):
    """What is not for everybody."""

    REQUESTS = "requests"
    """Payloads to a target that wait while there is no link, and are done once."""
    COMPRESSION = "compression"
    AGENT_POOLS = "agent-pools"
    """Several agents of one name."""


class Held(enum.Enum):
    """What a user has so and so many of at a time; the values are the words for people."""

    CONNECTIONS = "connections"
    """WebSockets, of clients and agents."""
    SESSIONS = "sessions"
    STREAMS = "streams"
    SSH_CONNECTIONS = "SSH connections"
    """The relay's own, in `Mode.RELAY_SSH`."""


@attrs.frozen
class Denial:
    """Something is not allowed.

    Attributes:
      reason: `NOT_ALLOWED`, which another tier heals, or `LIMIT`, which also patience does.
      detail: Why, for people.

    """

    reason: Reason
    detail: str


@attrs.frozen(kw_only=True)
class Tier:
    """What the users of one tier may do.

    Attributes:
      name: As tokens say it.
      modes: How they may reach agents.
      features: What else they may use.
      rates: How often they may ask for something.
      most: How much each user may have at a time; without a bound where nothing is said.

    """

    name: str
    modes: frozenset[Mode] = frozenset({Mode.END_TO_END})
    features: frozenset[Feature] = frozenset()
    rates: Rates = attrs.field(factory=Rates)
    most: Mapping[Held, int] = attrs.field(factory=dict[Held, int])

    def refuse_mode(self, mode: Mode) -> Denial | None:
        """Return why *mode* may not be used; None where it may."""
        if mode in self.modes:
            return None
        fix = f"issue the token for another tier, or allow it in [tiers.{self.name}] modes at the relay"
        return Denial(Reason.NOT_ALLOWED, f"the tier {self.name!r} has no mode {mode.value!r}; {fix}")

    def refuse_feature(self, feature: Feature) -> Denial | None:
        """Return why *feature* may not be used; None where it may."""
        if feature in self.features:
            return None
        return Denial(Reason.NOT_ALLOWED, f"the tier {self.name!r} has no {feature.value!r}")


# Per user: 100 requests a minute and 3 SSH connections are the design's; the others are guessed.
FREE = Tier(
    name="free",
    features=frozenset({Feature.REQUESTS}),
    most={Held.CONNECTIONS: 10, Held.SESSIONS: 10, Held.STREAMS: 256, Held.SSH_CONNECTIONS: 3},
)
PREMIUM = Tier(
    name="premium",
    modes=frozenset(Mode),
    features=frozenset({Feature.REQUESTS, Feature.COMPRESSION, Feature.AGENT_POOLS}),
    rates=Rates(requests=Rate(1000, 60.0), opens=Rate(200, 1.0)),
    most={Held.CONNECTIONS: 50, Held.SESSIONS: 100, Held.STREAMS: 2048, Held.SSH_CONNECTIONS: 3},
)
ENTERPRISE = Tier(
    name="enterprise",
    modes=frozenset(Mode),
    features=frozenset(Feature),
    rates=Rates(requests=Rate(10_000, 60.0), opens=Rate(1000, 1.0)),
    most={Held.CONNECTIONS: 500, Held.SESSIONS: 1000, Held.STREAMS: 16384, Held.SSH_CONNECTIONS: 3},
)


@attrs.define(eq=False)
class Access:
    """The tiers that there are, and what each user has now.

    Attributes:
      tiers: Each has a name of its own.
      default: The name of the tier of those whose token names none of them.

    """

    tiers: tuple[Tier, ...] = (FREE, PREMIUM, ENTERPRISE)
    default: str = FREE.name
    _by_name: dict[str, Tier] = attrs.field(factory=dict[str, Tier], init=False)
    _held: dict[tuple[str, Held], int] = attrs.field(factory=dict[tuple[str, Held], int], init=False)
    # What users have at other servers, and of whom something has changed here; both where somebody asks.
    _elsewhere: dict[tuple[str, Held], int] = attrs.field(factory=dict[tuple[str, Held], int], init=False)
    _changed: dict[tuple[str, Held], None] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.change(self.tiers)

    def change(self, tiers: tuple[Tier, ...]) -> None:
        """Have other *tiers* from now on; whoever has more than they allow keeps it."""
        by_name = {tier.name: tier for tier in tiers}
        if len(by_name) != len(tiers) or self.default not in by_name:
            raise ValueError("each tier must have a name of its own, and one of them be the default")
        self.tiers, self._by_name = tiers, by_name

    def tier(self, name: str) -> Tier:
        """Return the tier that a token means by *name*."""
        return self._by_name.get(name) or self._by_name[self.default]

    def rates(self) -> dict[str, Rates]:
        """Return the rates of all tiers by name."""
        return {tier.name: tier.rates for tier in self.tiers}

    def take(self, user: str, tier: str, held: Held) -> Denial | None:
        """Give *user* one more; return why not, or None: then `give_back` takes it back."""
        key = user, held
        most, have = self.tier(tier).most.get(held), self._held.get(key, 0)
        total = have + self._elsewhere.get(key, 0)
        if most is not None and total >= most:
            return Denial(Reason.LIMIT, f"{total} {held.value} are the most that the tier allows at a time")
        self._held[key] = have + 1
        self._note(key)
        return None

    def give_back(self, user: str, held: Held) -> None:
        """Note that *user* has one less."""
        key = user, held
        left = self._held[key] - 1
        if left:
            self._held[key] = left
        else:
            del self._held[key]
        self._note(key)

    def held(self, user: str, held: Held) -> int:
        """Return how many *user* has."""
        return self._held.get((user, held), 0)

    def changed(self, *, everything: bool = False) -> list[tuple[str, Held, int]]:
        """Return what users have where that has changed since the last time; with *everything*, all that they have."""
        keys = {**(self._changed or {}), **(dict.fromkeys(self._held) if everything else {})}
        self._changed = {}
        return [(*key, self._held.get(key, 0)) for key in keys]

    def agree(self, user: str, held: Held, elsewhere: int) -> None:
        """Take into account that *user* has so many at other servers."""
        if elsewhere and (user, held) in self._held:
            self._elsewhere[user, held] = elsewhere
        else:
            self._elsewhere.pop((user, held), None)

    def forget_elsewhere(self) -> None:
        """Nothing is known any more of what users have at other servers."""
        self._elsewhere.clear()

    def _note(self, key: tuple[str, Held]) -> None:
        if self._changed is not None:
            self._changed[key] = None
