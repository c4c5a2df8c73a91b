"""The servers of one relay, seen from one of them: which agents the others have, and how to get to those.

Where the store does not answer, what it has said last of a user's agents is taken for true, and beside it all that is
linked to this server.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import attrs
import trio

from tunnel_relay.policy.lease import LENGTH, AgentKey, Lease
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.server.absence import why_leaving
from tunnel_relay.server.peering import PeerAwayError, Peers, Route
from tunnel_relay.server.store import Store, StoreAwayError
from tunnel_relay.server.switch import Port, Switch, Wanted

# Seconds until a store that has not answered is asked again.
AGAIN = 1.0

# Seconds that may be taken to tell the store that an agent is gone.
PARTING = 2.0

# Whose the relays' own far ends are, in the store (`Mode.RELAY_SSH`): no user is called so.
RELAYS = "\0relays"

# Users whose agents are remembered; of those beyond, the one who was asked for longest ago is forgotten.
MOST_KNOWN = 4096


@attrs.define(eq=False)
class Cluster:
    """See the module; it is the switch's `Elsewhere`.

    Attributes:
      nursery: Runs what is looked up.
      store: What the servers share.
      address: Where this server takes the others' links: HOST:PORT.
      switch: Has this server's clients and agents.
      peers: The links to other servers.
      length: Seconds that a registration lasts; it is renewed three times in that time.

    """

    nursery: trio.Nursery
    store: Store
    address: str
    switch: Switch
    peers: Peers
    length: float = LENGTH
    # What is wanted last in each session of a client that is looked up.
    _wanted: dict[tuple[Port, int], Wanted] = attrs.field(factory=dict[tuple[Port, int], Wanted], init=False)
    # What the store has said last, by user.
    _known: dict[str, list[Lease]] = attrs.field(factory=dict[str, list[Lease]], init=False)

    async def stay(self, agent: Port) -> None:
        """Keep *agent*, whose link is here, registered until cancelled; return where another server has it now."""
        assert agent.agent is not None
        key, lease = AgentKey(agent.user, agent.agent, agent.instance), None
        try:
            while True:
                try:
                    asked = (
                        self.store.register(key, self.address) if lease is None else self.store.renew(lease)
                    )
                    lease = await asked
                except StoreAwayError:
                    await trio.sleep(AGAIN)
                    continue
                if lease is None:
                    return
                if agent.leaving.is_set() and not lease.leaving:
                    # Other servers are to know at once.
                    lease = attrs.evolve(lease, leaving=True)
                    continue
                leaving = trio.Event() if lease.leaving else agent.leaving
                with trio.move_on_after(self.length / 3):
                    await leaving.wait()
        finally:
            if lease is not None:
                with trio.move_on_after(PARTING, shield=True), suppress(StoreAwayError):
                    await self.store.unregister(lease)

    def look_up(self, wanted: Wanted) -> None:
        """See `Elsewhere.look_up`; of what a client wants in one session, the store is asked one by one."""
        key = wanted.client, wanted.label
        under_way = key in self._wanted
        self._wanted[key] = wanted
        if not under_way:
            self.nursery.start_soon(self._settle_last, key)

    def names_of(self, user: str) -> Collection[str]:
        """See `Elsewhere.names_of`."""
        return {lease.key.name for lease in self._known.get(user, ())}

    async def _settle_last(self, key: tuple[Port, int]) -> None:
        wanted: Wanted | None = None
        try:
            while wanted is not self._wanted[key]:
                wanted = self._wanted[key]
                await self._settle(wanted)
        finally:
            del self._wanted[key]

    async def _settle(self, wanted: Wanted) -> None:
        client = wanted.client
        leases, certain = await self._leases(client.user)
        name = wanted.name or self.switch.only_agent(client.user)
        meant = [
            lease
            for lease in leases
            if name in ("", lease.key.name) and wanted.instance in (None, lease.key.instance)
        ]
        others = [lease for lease in meant if lease.holder != self.address]
        # A link of such an agent that is here is dead, and this server has not noticed yet.
        gone = {lease.key.instance for lease in others} if certain else set[str]()
        if wanted.mode is Mode.END_TO_END and (name or wanted.instance):
            anew = wanted.instance is None
            usable = [lease for lease in meant if not (anew and lease.leaving)]
            there = [lease for lease in usable if lease in others]
            # Where the tier has no pools, new sessions are the latest one's, wherever that is.
            latest = anew and not self.switch.pools(client.tier)
            elsewhere = bool(certain and latest and usable and usable[0] in others)
            here = self.switch.find(client.user, name, wanted.instance, gone)
            if (here is None or elsewhere) and there:
                await self._lead(wanted, there)
                return
            if here is None and others:
                client.settle(wanted, None, why_leaving(name))
                return
        if wanted.mode is Mode.RELAY_SSH and name and await self._lead_back(wanted, name):
            return
        client.find_here(wanted, name, gone)

    async def _lead(self, wanted: Wanted, leases: list[Lease]) -> None:
        """Join the session through one of the servers that have the agent, the one that got it last first."""
        why = ""
        for lease in leases:
            try:
                port = await self.peers.reach(lease.holder)
            except PeerAwayError as exc:
                why = str(exc)
                continue
            key = lease.key
            wanted.client.settle(wanted, port, route=Route(key.user, key.name, key.instance).encode())
            return
        wanted.client.settle(wanted, None, why)

    async def _lead_back(self, wanted: Wanted, name: str) -> bool:
        """Join a session of a relay's own, with an agent of that name, to where it began; False where that is here.

        So it is where that server is gone: then the session is.
        """
        if wanted.instance is None:
            return False
        client = wanted.client
        for lease in (await self._leases(RELAYS))[0]:
            if lease.key.instance == wanted.instance and lease.holder != self.address:
                with suppress(PeerAwayError):
                    port = await self.peers.reach(lease.holder)
                    route = Route(client.user, name, wanted.instance, client.tier)
                    client.settle(wanted, port, route=route.encode())
                    return True
        return False

    async def _leases(self, user: str) -> tuple[list[Lease], bool]:
        """Return the registrations of a user's agents, and whether that is how it stands."""
        try:
            leases = await self.store.agents(user)
        except StoreAwayError:
            return self._known.get(user, []), False
        self._known.pop(user, None)
        if leases:
            while len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[user] = leases
        return leases, True
