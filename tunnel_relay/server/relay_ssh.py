"""The mode in which the relay speaks SSH itself: it keeps the clients' sessions, and leads their streams through SSH.

For each agent of each user there is a far end, which the switch joins to the user's clients as if it were an agent.
What streams ask for is HOST:PORT, and comes about as a channel over one of the few SSH connections that the relay has
to the agent's SSH server. Those run over a session of the relay's own with the agent, in which it is a client like any
other. So all of a stream's way outlives the loss of the client's link and of the agent's; the relay itself it does not.

The first SSH connection is made when a client begins a session, not when the agent comes: most agents are reached end
to end, and nobody should log in to them for nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from tunnel_relay.answering import Answering
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import PAUSE, Reaching
from tunnel_relay.far_end import FarEnd
from tunnel_relay.inner_link import InnerLink, carry
from tunnel_relay.policy.access import Access, Denial, Feature, Held
from tunnel_relay.policy.breaker import Breakers, BreakerSettings, BreakerState
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.record import Record
from tunnel_relay.relay_stream import StreamRefusedError
from tunnel_relay.server.refusals import not_done, read_target
from tunnel_relay.server.ssh_login import Accounts, LoginSettings, RelaySshEvent, SshLogin, host_name
from tunnel_relay.server.ssh_pool import PoolSettings, SshPool
from tunnel_relay.server.switch import Port, Switch
from tunnel_relay.ssh.session import SshSession

# Seconds that everything up to the answer to a stream may take: none of its parts takes as long.
LIMIT = 40.0


@attrs.frozen(kw_only=True)
class RelaySshSettings:
    """How the relay speaks SSH.

    Attributes:
      login: How to log in to agents.
      pool: How many connections there are to each.
      session: The bounds of the sessions with agents.
      clients: Those of the sessions with clients: less, where the relay is to have memory for many.
      linger: Seconds after which to look whether a far end has anything to do, and to give it up otherwise.

    """

    login: LoginSettings = attrs.field(factory=LoginSettings)
    pool: PoolSettings = attrs.field(factory=PoolSettings)
    session: SessionSettings = attrs.field(factory=SessionSettings)
    clients: SessionSettings = attrs.field(default=attrs.Factory(lambda self: self.session, takes_self=True))
    linger: float = 60.0


@attrs.define(eq=False)
class RelaySsh:
    """See the module; give `keep` to the switch as its keeper.

    Attributes:
      nursery: Runs everything.
      switch: Joins clients to what is kept here, and this to agents.
      access: What tiers allow; counts SSH connections.
      accounts: How to log in, by user and agent.
      notify: Called with what happens.
      settings: How to.
      record: Knows which requests were done; without it, none is.
      breakers: Keep from trying agents' SSH servers that keep failing.
      instance: What tells this relay from others, and from itself before it was started anew.

    """

    nursery: trio.Nursery
    switch: Switch
    access: Access
    accounts: Accounts
    notify: Callable[[RelaySshEvent], None]
    settings: RelaySshSettings = attrs.field(factory=RelaySshSettings)
    record: Record | None = None
    breakers: Breakers = attrs.field(factory=Breakers)
    instance: str = attrs.field(factory=lambda: secrets.token_hex(8))
    _sides: dict[tuple[str, str], _Side] = attrs.field(factory=dict[tuple[str, str], "_Side"], init=False)
    _given_back: trio.Event = attrs.field(factory=trio.Event, init=False)
    _draining: str = attrs.field(default="", init=False)

    @property
    def connections(self) -> int:
        """How many SSH connections there are."""
        return sum(side.pool.connections for side in self._sides.values())

    @property
    def streams(self) -> int:
        """How many streams they carry."""
        return sum(side.pool.streams for side in self._sides.values())

    def change(self, accounts: Accounts, settings: RelaySshSettings, breaker: BreakerSettings) -> None:
        """Be told otherwise; what there is stays, and the bounds of sessions are those of new far ends."""
        self.accounts, self.settings, self.breakers.settings = accounts, settings, breaker
        for side in self._sides.values():
            side.change()

    async def drain(self, detail: str) -> None:
        """Do no more requests, for the reason *detail*, and return when those that have begun are done.

        From then on an agent whose last stream has ended is left alone, and streams to it are refused.
        """
        self._draining = detail
        for side in list(self._sides.values()):
            side.drain(detail)
        for side in list(self._sides.values()):
            await side.wait_answered()
        for side in list(self._sides.values()):
            self.nursery.start_soon(side.leave, detail)

    def breaker_state(self) -> BreakerState:
        """Return the worst state that a breaker is in."""
        return self.breakers.worst(trio.current_time())

    def keep(self, client: Port, name: str, instance: str | None) -> Port | Denial | None:
        """See `Switch.keeper`."""
        denial = self.access.tier(client.tier).refuse_mode(Mode.RELAY_SSH)
        if denial is not None:
            return denial
        if instance is not None and instance != self.instance:
            return Denial(Reason.SESSION_LOST, "the relay was started anew, or is another one")
        side = self._side(client.user, name)
        if side is None:
            return None
        side.tier = client.tier
        if not self._draining:
            side.pool.warm()
        return side.port

    def _side(self, user: str, name: str) -> _Side | None:
        side = self._sides.get((user, name))
        # Nobody makes us keep something for names that there are not. An agent may be linked to another server.
        if side is None and name in self.switch.agents_of(user):
            side = self._sides[user, name] = _Side(self, user, name)
            side.drain(self._draining)
            self.nursery.start_soon(side.run)
        return side

    # -- what sides call

    def over(self, side: _Side) -> None:
        """There is nothing to do for it."""
        del self._sides[side.user, side.agent]

    async def take(self, side: _Side, *, needed: bool) -> None:
        """Count one more SSH connection of a user.

        Who has all that the tier allows, and needs one, gives up another that is not used.

        Raises:
          StreamRefusedError: there is none.

        """
        while (denial := self.access.take(side.user, side.tier, Held.SSH_CONNECTIONS)) is not None:
            others = (each for each in self._sides.values() if each.user == side.user)
            if not needed or not any(each.pool.close_unused() for each in others):
                raise StreamRefusedError(denial.reason, denial.detail)
            await self._given_back.wait()

    def give_back(self, side: _Side) -> None:
        """Count one less."""
        self.access.give_back(side.user, Held.SSH_CONNECTIONS)
        self._given_back.set()
        self._given_back = trio.Event()


@attrs.define(eq=False)
class _Side:
    """What the relay has for one agent of one user: a far end, SSH connections, and a session with the agent."""

    relay: RelaySsh
    user: str
    agent: str
    tier: str = ""
    pool: SshPool = attrs.field(init=False)
    port: Port = attrs.field(init=False)
    _far_end: FarEnd = attrs.field(init=False)
    _reaching: Reaching = attrs.field(init=False)
    _login: SshLogin = attrs.field(init=False)
    _answering: Answering | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        relay, settings = self.relay, self.relay.settings
        self.pool = SshPool(
            relay.nursery, self._connection, lambda: self._far_end.sessions > 0, settings.pool
        )
        asked, record = None, ""
        if relay.record is not None:
            record = relay.record.id
            owner = host_name(self.user, self.agent)
            self._answering = Answering(relay.nursery, relay.record, owner, self._connect_for_request)
            asked = self._answering.asked
        self._far_end = FarEnd(
            relay.nursery, self._connect, relay.instance, settings.clients, asked, LIMIT, record
        )
        self._reaching = Reaching(relay.nursery, self.agent, settings.session)
        self._login = SshLogin(
            self.user,
            self.agent,
            self._reaching,
            relay.accounts,
            relay.breakers,
            relay.notify,
            self._may_compress,
            settings.login,
        )
        self.port = Port(relay.switch, self.user, self.agent, relay.instance)
        self.port.link = InnerLink(self._far_end.heed)

    def change(self) -> None:
        """Take what the relay was told otherwise."""
        settings = self.relay.settings
        self.pool.settings = settings.pool
        self._login.accounts, self._login.settings = self.relay.accounts, settings.login

    def drain(self, detail: str) -> None:
        """Do no more requests, for the reason *detail*."""
        if self._answering is not None:
            self._answering.draining = detail

    async def wait_answered(self) -> None:
        """Wait until no request is being done."""
        if self._answering is not None:
            await self._answering.wait_over()

    async def leave(self, detail: str) -> None:
        """Give up what there is for the agent as soon as no stream needs it, for the reason *detail*."""
        await self._far_end.wait_streams_over()
        self._far_end.draining = detail
        self.pool.close(detail)

    async def _let_agent_go(self) -> None:
        """Close what keeps the agent from ending as soon as no stream needs it."""
        await self._far_end.wait_streams_over()
        while self.pool.close_unused():
            pass

    async def run(self) -> None:
        """Join it to the switch, until there is nothing to do."""
        towards_agent = Port(self.relay.switch, self.user, own=True)
        towards_agent.link = InnerLink(self._reaching.heed)
        towards_agent.agent_leaves = lambda: self.relay.nursery.start_soon(self._let_agent_go)
        async with open_background() as nursery:
            nursery.start_soon(self._link, self._far_end, self.port)
            nursery.start_soon(self._link, self._reaching, towards_agent)
            while True:
                await trio.sleep(self.relay.settings.linger)
                if not self._far_end.sessions and self.pool.idle:
                    break
            self.relay.over(self)
            # The agent need not keep the session: leave it the time to hear so.
            self._reaching.part("the relay needs it no more")
            await trio.sleep(PAUSE)

    @staticmethod
    async def _link(end: FarEnd | Reaching, port: Port) -> None:
        """Keep *end* linked to the switch at *port*."""
        while True:
            assert isinstance(port.link, InnerLink)
            up = InnerLink(port.heed)
            end.attach(up)
            detail = "the relay needs it no more"
            try:
                # The agent may say nonsense.
                detail = await carry(port.link, up)
            finally:
                end.detach()
                port.lose(detail)
            port.link = InnerLink(end.heed)
            await trio.sleep(PAUSE)

    async def _connect(self, target: str) -> trio.abc.HalfCloseableStream:
        host, port = read_target(target)
        return await self.pool.open(host, port)

    def _may_compress(self) -> bool:
        return self.relay.access.tier(self.tier).refuse_feature(Feature.COMPRESSION) is None

    async def _connect_for_request(self, target: str) -> trio.abc.HalfCloseableStream:
        try:
            return await self._connect(target)
        except StreamRefusedError as exc:
            raise not_done(exc) from exc

    # -- its SSH connections

    @asynccontextmanager
    async def _connection(self, needed: bool) -> AsyncGenerator[SshSession]:
        """Be logged in to the agent's SSH server for the length of a block.

        Raises:
          StreamRefusedError: that cannot be, or ends before it is; says why.

        """
        await self.relay.take(self, needed=needed)
        try:
            async with self._login.connect() as session:
                yield session
        finally:
            self.relay.give_back(self)
