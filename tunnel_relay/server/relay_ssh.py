"""The mode in which the relay speaks SSH itself: it keeps the clients' sessions, and leads their streams through SSH.

For each agent of each user there is a far end, which the switch joins to the user's clients as if it were an agent.
What streams ask for is HOST:PORT, and comes about as a channel over one of the few SSH connections that the relay has
to the agent's SSH server. Those run over a session of the relay's own with the agent, in which it is a client like any
other. So all of a stream's way outlives the loss of the client's link and of the agent's; the relay itself it does not.

The first SSH connection is made when a client begins a session, not when the agent comes: most agents are reached end
to end, and nobody should log in to them for nothing.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from tunnel_relay.answering import Answering
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import PAUSE, Reaching
from tunnel_relay.errors import SshError
from tunnel_relay.far_end import FarEnd
from tunnel_relay.inner_link import InnerLink, carry
from tunnel_relay.policy.access import Access, Denial
from tunnel_relay.policy.access import Held as Counted
from tunnel_relay.policy.breaker import Breakers, BreakerState, Held
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.multiplexer import Reason
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.record import Record
from tunnel_relay.server.refusals import no_connection, not_done, read_target
from tunnel_relay.server.ssh_pool import PoolSettings, SshPool
from tunnel_relay.server.switch import Port, Switch
from tunnel_relay.sessions import StreamRefusedError, StreamResetError
from tunnel_relay.ssh.hostkeys import HostKeyPolicy
from tunnel_relay.ssh.keys import Identity
from tunnel_relay.ssh.session import SshSession, open_ssh_session
from tunnel_relay.ssh.settings import SshSettings

# Seconds that everything up to the answer to a stream may take: none of its parts takes as long.
LIMIT = 40.0

# What a name may have in a known_hosts file: patterns know no case, and some characters mean something there.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@attrs.frozen
class SshAccount:
    """How to log in to an agent's SSH server: as whom, and with which keys, in this order."""

    user: str
    identities: Sequence[Identity] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class RelaySshSettings:
    """How the relay speaks SSH.

    Attributes:
      service: What agents call their SSH server.
      pool: How many connections there are to each.
      session: The bounds of the sessions, with clients and with agents.
      ssh: How an SSH connection behaves. It may be silent for as long as a session may be without a link.
      patience: Seconds to wait for an agent that is not connected.
      setup: Seconds that connecting and logging in may take, once it is.
      linger: Seconds after which to look whether a far end has anything to do, and to give it up otherwise.

    """

    service: str = "ssh"
    pool: PoolSettings = attrs.field(factory=PoolSettings)
    session: SessionSettings = attrs.field(factory=SessionSettings)
    ssh: SshSettings = attrs.field(
        default=attrs.Factory(
            lambda self: SshSettings(keepalive_timeout=self.session.grace + 30), takes_self=True
        )
    )
    patience: float = 5.0
    setup: float = 15.0
    linger: float = 60.0


@attrs.frozen(kw_only=True)
class SshConnected:
    """The relay has logged in to a user's agent, which took so many seconds.

    Attributes:
      new_host_key: The fingerprint of its host key, where that was not known and has been recorded.

    """

    user: str
    agent: str
    setup: float
    new_host_key: str = ""


@attrs.frozen(kw_only=True)
class SshEnded:
    """A connection to a user's agent has ended; *detail* is empty where nobody needed it."""

    user: str
    agent: str
    detail: str


@attrs.frozen(kw_only=True)
class SshFailed:
    """There is no connection to a user's agent; *opened* says that its breaker has opened."""

    user: str
    agent: str
    detail: str
    opened: bool = False


RelaySshEvent = SshConnected | SshEnded | SshFailed


def host_name(user: str, agent: str) -> str:
    """Return what the SSH server of *user*'s agent is called in known_hosts."""
    return f"{_plain(user)}/{_plain(agent)}"


def _plain(name: str) -> str:
    return "".join(
        char if char in _PLAIN else "".join(f"%{byte:02x}" for byte in char.encode("utf8", "surrogatepass"))
        for char in name
    )


@attrs.define(eq=False)
class RelaySsh:
    """See the module; give `keep` to the switch as its keeper.

    Attributes:
      nursery: Runs everything.
      switch: Joins clients to what is kept here, and this to agents.
      access: What tiers allow; counts SSH connections.
      accounts: How to log in, by user and agent; None where nobody has said so.
      host_keys: Which host keys are accepted; agents are called what `host_name` says.
      notify: Called with what happens.
      settings: How to.
      record: Knows which requests were done; without it, none is.
      breakers: Keep from trying agents' SSH servers that keep failing.
      instance: What tells this relay from others, and from itself before it was started anew.

    """

    nursery: trio.Nursery
    switch: Switch
    access: Access
    accounts: Callable[[str, str], SshAccount | None]
    host_keys: HostKeyPolicy
    notify: Callable[[RelaySshEvent], None]
    settings: RelaySshSettings = attrs.field(factory=RelaySshSettings)
    record: Record | None = None
    breakers: Breakers = attrs.field(factory=Breakers)
    instance: str = attrs.field(factory=lambda: secrets.token_hex(8))
    _sides: dict[tuple[str, str], _Side] = attrs.field(factory=dict[tuple[str, str], "_Side"], init=False)
    _given_back: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def connections(self) -> int:
        """How many SSH connections there are."""
        return sum(side.pool.connections for side in self._sides.values())

    @property
    def streams(self) -> int:
        """How many streams they carry."""
        return sum(side.pool.streams for side in self._sides.values())

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
        side.pool.warm()
        return side.port

    def _side(self, user: str, name: str) -> _Side | None:
        agent = self.switch.find(user, name, None)
        if agent is not None and agent.agent is not None:
            # It may have been asked for without its name.
            name = agent.agent
        side = self._sides.get((user, name))
        if side is None and agent is not None:
            side = self._sides[user, name] = _Side(self, user, name)
            self.nursery.start_soon(side.run)
        return side

    # -- what sides call

    def over(self, side: _Side) -> None:
        """There is nothing to do for it."""
        del self._sides[side.user, side.agent]

    async def take(self, side: _Side) -> None:
        """Count one more SSH connection of a user; who has all that the tier allows gives up one that is not used.

        Raises:
          StreamRefusedError: all of them are.

        """
        while (denial := self.access.take(side.user, side.tier, Counted.SSH_CONNECTIONS)) is not None:
            others = (each for each in self._sides.values() if each.user == side.user)
            if not any(each.pool.close_unused() for each in others):
                raise StreamRefusedError(denial.reason, denial.detail)
            await self._given_back.wait()

    def give_back(self, side: _Side) -> None:
        """Count one less."""
        self.access.give_back(side.user, Counted.SSH_CONNECTIONS)
        self._given_back.set()
        self._given_back = trio.Event()


class _AwayError(Exception):
    """The agent is not connected, or the relay cannot do its own part: that says nothing of the SSH server."""


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

    def __attrs_post_init__(self) -> None:
        relay, settings = self.relay, self.relay.settings
        self.pool = SshPool(relay.nursery, self._connection, settings.pool)
        asked = None
        if relay.record is not None:
            owner = host_name(self.user, self.agent)
            asked = Answering(relay.nursery, relay.record, owner, self._connect_for_request).asked
        self._far_end = FarEnd(relay.nursery, self._connect, relay.instance, settings.session, asked, LIMIT)
        self._reaching = Reaching(relay.nursery, self.agent, settings.session)
        self.port = Port(relay.switch, self.user, self.agent, relay.instance)
        self.port.link = InnerLink(self._far_end.heed)

    async def run(self) -> None:
        """Join it to the switch, until there is nothing to do."""
        towards_agent = Port(self.relay.switch, self.user)
        towards_agent.link = InnerLink(self._reaching.heed)
        async with open_background() as nursery:
            nursery.start_soon(self._link, self._far_end, self.port)
            nursery.start_soon(self._link, self._reaching, towards_agent)
            while True:
                await trio.sleep(self.relay.settings.linger)
                if not self._far_end.sessions and self.pool.idle:
                    break
            self.relay.over(self)

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

    async def _connect_for_request(self, target: str) -> trio.abc.HalfCloseableStream:
        try:
            return await self._connect(target)
        except StreamRefusedError as exc:
            raise not_done(exc) from exc

    # -- its SSH connections

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[SshSession]:
        """Be logged in to the agent's SSH server for the length of a block.

        Raises:
          StreamRefusedError: that cannot be, or ends before it is; says why.

        """
        relay = self.relay
        account = relay.accounts(self.user, self.agent)
        if account is None:
            raise StreamRefusedError(
                Reason.NOT_ALLOWED, f"the relay knows no way to log in to the agent {self.agent!r}"
            )
        await relay.take(self)
        try:
            async with self._admitted(account) as session:
                yield session
        finally:
            relay.give_back(self)

    @asynccontextmanager
    async def _admitted(self, account: SshAccount) -> AsyncGenerator[SshSession]:
        """Log in where that has not failed too often; take note of whether it works."""
        breakers, began = self.relay.breakers, trio.current_time()
        admitted = breakers.admit(self.user, self.agent, began)
        if isinstance(admitted, Held):
            raise StreamRefusedError(
                Reason.UNREACHABLE,
                f"no SSH connection to the agent {self.agent!r} came about of late; the next attempt is made in"
                f" {math.ceil(admitted.retry_in)} s",
            )
        connected = False
        try:
            async with self._logged_in(account) as session:
                connected = True
                breakers.succeeded(admitted)
                self._tell_of(session, trio.current_time() - began)
                try:
                    yield session
                finally:
                    detail = str(session.close_reason or "")
                    self.relay.notify(SshEnded(user=self.user, agent=self.agent, detail=detail))
        except _AwayError as exc:
            raise self._failed(StreamRefusedError(Reason.UNREACHABLE, str(exc)), opened=False) from exc
        except (SshError, StreamRefusedError, StreamResetError) as exc:
            opened = not connected and breakers.failed(admitted, trio.current_time())
            raise self._failed(exc, opened=opened) from exc
        finally:
            # Of one that was counted this takes no note.
            breakers.abandoned(admitted)

    def _tell_of(self, session: SshSession, setup: float) -> None:
        new = session.host_key.fingerprint if session.host_key_is_new else ""
        self.relay.notify(SshConnected(user=self.user, agent=self.agent, setup=setup, new_host_key=new))

    def _failed(
        self, exc: SshError | StreamRefusedError | StreamResetError, *, opened: bool
    ) -> StreamRefusedError:
        refused = no_connection(self.agent, exc)
        self.relay.notify(SshFailed(user=self.user, agent=self.agent, detail=refused.detail, opened=opened))
        return refused

    @asynccontextmanager
    async def _logged_in(self, account: SshAccount) -> AsyncGenerator[SshSession]:
        settings = self.relay.settings
        with trio.move_on_after(settings.patience) as patience:
            await self._reaching.wait_ready()
        if patience.cancelled_caught:
            raise _AwayError(self._reaching.why_not or "it does not answer")
        with trio.move_on_after(settings.setup) as setup:
            async with self._reaching.open_stream(settings.service) as stream:
                await stream.wait_accepted()
                async with open_ssh_session(
                    stream,
                    user=account.user,
                    identities=account.identities,
                    host_keys=self.relay.host_keys,
                    host=host_name(self.user, self.agent),
                    settings=settings.ssh,
                ) as session:
                    await session.ping()
                    setup.deadline = math.inf
                    yield session
        if setup.cancelled_caught and self._reaching.why_not is not None:
            raise _AwayError(self._reaching.why_not)
        if setup.cancelled_caught:
            raise StreamRefusedError(Reason.TIMED_OUT, f"not logged in within {settings.setup:g} s")
