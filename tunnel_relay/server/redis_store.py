"""A store in Redis. The only file that imports coredis.

Each call is one script, and so atomic; time is Redis' own, in microseconds. Keys of one user have that user's name in
braces, so that a cluster of Redis servers has them in one place. All keys end by themselves. A Redis that has not
answered is not asked again for a moment, so that one that hangs costs nobody more than that.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import quote

import attrs
import trio
from coredis import Redis
from coredis.commands import Script
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from tunnel_relay.background import open_background
from tunnel_relay.policy.access import Held
from tunnel_relay.policy.lease import LENGTH, MOST_AGENTS, AgentKey, Lease
from tunnel_relay.policy.rate import Rate
from tunnel_relay.server.store import REVOKED_FOR, StoreAwayError

# Seconds that one call may take, and that Redis is left alone after one has failed.
LIMIT = 2.0
REST = 1.0

# Connections to Redis, and how many calls are under way. Others wait for their turn, for so many seconds: when a server
# has been started anew, all agents come at once. Look-ups, which clients cause, have turns of their own, and leave
# connections to what has to be said in time.
CONNECTIONS = 8
TURNS = 12
LOOK_UPS = 4
QUEUE = 10.0

# Seconds for which a user's last fencing number is remembered: much longer than any lease.
FENCES = 30 * 86400

# Revoked tokens in one call.
BATCH = 1000

_MICRO = 1_000_000

_LEAVING = "leaving"

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

# A bucket is the time at which it is full. ARGV: what it takes longer now.
_TAKE = f"""{_NOW}
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + tonumber(ARGV[1])
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
return string.format('%.0f', full - now)
"""

# An agent is "end fence holder", or "end fence holder leaving". ARGV: agent, holder, length, most, and the fence of
# a lease that is renewed.
_REGISTER = f"""{_NOW}
local length = tonumber(ARGV[3])
local function enter(fence)
    local value = string.format('%.0f', now + length) .. ' ' .. fence .. ' ' .. ARGV[2]
    redis.call('HSET', KEYS[1], ARGV[1], value)
    redis.call('PEXPIRE', KEYS[1], math.ceil(length / 1000))
    return fence
end
local others = 0
local agents = redis.call('HGETALL', KEYS[1])
for i = 1, #agents, 2 do
    local ends, fence = string.match(agents[i + 1], '^(%d+) (%d+) ')
    if tonumber(ends) <= now then
        redis.call('HDEL', KEYS[1], agents[i])
    elseif agents[i] ~= ARGV[1] then
        others = others + 1
    elseif ARGV[5] == fence then
        return enter(fence)
    elseif ARGV[5] ~= '' then
        return false
    end
end
if others >= tonumber(ARGV[4]) then
    return false
end
local fence = string.format('%.0f', redis.call('INCR', KEYS[2]))
redis.call('EXPIRE', KEYS[2], ARGV[6])
return enter(fence)
"""

# ARGV: agent, fence.
_UNREGISTER = """
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value and string.match(value, '^%d+ (%d+) ') == ARGV[2] then
    return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
"""

_AGENTS = f"""{_NOW}
local found = {{}}
local agents = redis.call('HGETALL', KEYS[1])
for i = 1, #agents, 2 do
    if tonumber(string.match(agents[i + 1], '^%d+')) > now then
        table.insert(found, agents[i])
        table.insert(found, agents[i + 1])
    end
end
return found
"""

# Tokens by when they are forgotten. KEYS: them, and a number that tells that they have changed. ARGV: seconds, tokens.
_REVOKE = f"""{_NOW}
local changed = redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
local ends = string.format('%.0f', now + ARGV[1] * 1000000)
for i = 2, #ARGV do
    changed = changed + redis.call('ZADD', KEYS[1], ends, ARGV[i])
end
if changed > 0 then
    redis.call('INCR', KEYS[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1] * 2)
return changed
"""

# ARGV: the number that the asker has seen. What it knows already is not said again.
_REVOKED = f"""{_NOW}
local version = redis.call('GET', KEYS[2]) or '0'
if version == ARGV[1] then
    return {{version}}
end
return {{version, redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', now), '+inf')}}
"""

# What a user has, by server, as "end count". ARGV: server, count, length.
_HOLD = f"""{_NOW}
local others = 0
local known = redis.call('HGETALL', KEYS[1])
for i = 1, #known, 2 do
    local ends, count = string.match(known[i + 1], '^(%d+) (%d+)$')
    if tonumber(ends) <= now then
        redis.call('HDEL', KEYS[1], known[i])
    elseif known[i] ~= ARGV[1] then
        others = others + tonumber(count)
    end
end
if ARGV[2] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[3]) .. ' ' .. ARGV[2])
    redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] / 1000))
end
return string.format('%.0f', others)
"""


@asynccontextmanager
async def open_redis_store(
    url: str, server: str, *, prefix: str = "", length: float = LENGTH, tell: Callable[[str], None]
) -> AsyncGenerator[RedisStore]:
    """Use the Redis at *url* for the length of a block, be it there or not.

    *server* tells this server from others, *prefix* our keys from those of others; leases last *length* seconds.
    *tell* is called when Redis has ceased to answer, with why; and with nothing when it does again.
    """
    redis = Redis.from_url(
        url,
        decode_responses=True,
        connect_timeout=LIMIT,
        stream_timeout=LIMIT,
        max_connections=CONNECTIONS,
        # What is asked was perhaps done, and is seldom worth doing twice.
        retry_policy=NoRetryPolicy(),
    )
    # It logs each attempt to connect, with a traceback; what is to be told of that, `tell` is.
    logger = logging.getLogger("coredis")
    logger.addFilter(_refuse)
    try:
        # Its nursery would show in what the block raises.
        async with open_background() as nursery:
            await nursery.start(_stay_open, redis)
            yield RedisStore(redis, server, prefix, length, tell)
    finally:
        logger.removeFilter(_refuse)


async def _stay_open(redis: Redis[str], *, task_status: trio.TaskStatus[None]) -> None:
    async with redis:
        task_status.started()
        await trio.sleep_forever()


def _refuse(_record: logging.LogRecord) -> bool:
    return False


@attrs.define(eq=False)
class RedisStore:
    """See `tunnel_relay.server.store.Store`; make one with `open_redis_store`."""

    redis: Redis[str] = attrs.field(repr=False)
    server: str
    prefix: str
    length: float
    tell: Callable[[str], None]
    trouble: str = attrs.field(default="", init=False)
    _turns: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(TURNS), init=False)
    _look_ups: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(LOOK_UPS), init=False)
    _rests_until: float = attrs.field(default=-math.inf, init=False)
    _scripts: dict[str, Script[str]] = attrs.field(factory=dict[str, Script[str]], init=False)
    # The revoked tokens that are known, and which version of them.
    _version: str = attrs.field(default="", init=False)
    _known: frozenset[str] = attrs.field(default=frozenset[str](), init=False)

    async def take(self, bucket: str, key: str, rate: Rate, tokens: int = 1) -> float:
        """See `Store.take`."""
        longer = tokens * rate.period / rate.tokens
        return await self._number(_TAKE, [self._key(key, bucket)], _micro(longer)) / _MICRO

    async def register(self, key: AgentKey, holder: str) -> Lease | None:
        """See `Store.register`."""
        return await self._enter(Lease(key, holder, 0, math.inf), "")

    async def renew(self, lease: Lease) -> Lease | None:
        """See `Store.renew`."""
        return await self._enter(lease, str(lease.fence))

    async def _enter(self, lease: Lease, fence: str) -> Lease | None:
        key, holder = lease.key, f"{lease.holder} {_LEAVING}" if lease.leaving else lease.holder
        keys = [self._key(key.user, "agents"), self._key(key.user, "fence")]
        bounds = _micro(self.length), str(MOST_AGENTS)
        given = await self._number(_REGISTER, keys, _agent(key), holder, *bounds, fence, str(FENCES))
        # When it ends, Redis knows by its own clock.
        return attrs.evolve(lease, fence=given) if given else None

    async def unregister(self, lease: Lease) -> bool:
        """See `Store.unregister`."""
        keys = [self._key(lease.key.user, "agents")]
        return bool(await self._number(_UNREGISTER, keys, _agent(lease.key), str(lease.fence)))

    async def agents(self, user: str) -> list[Lease]:
        """See `Store.agents`."""
        async with self._turn(self._look_ups):
            answer = await self._ask_now(_AGENTS, [self._key(user, "agents")], ())
        flat = cast("list[str]", answer)
        found: list[Lease] = []
        for agent, value in zip(flat[::2], flat[1::2], strict=True):
            ends, fence, holder = value.split(" ", 2)
            name, _, instance = agent.partition("\0")
            holder, _, leaving = holder.partition(" ")
            key = AgentKey(user, name, instance)
            found.append(Lease(key, holder, int(fence), int(ends) / _MICRO, leaving == _LEAVING))
        return sorted(found, key=lambda lease: -lease.fence)

    async def revoke(self, tokens: Collection[str]) -> None:
        """See `Store.revoke`."""
        keys = [self._key("revoked", "tokens"), self._key("revoked", "version")]
        left = iter(tokens)
        while batch := list(itertools.islice(left, BATCH)):
            await self._ask(_REVOKE, keys, str(round(REVOKED_FOR)), *batch)

    async def revoked(self) -> frozenset[str]:
        """See `Store.revoked`."""
        keys = [self._key("revoked", "tokens"), self._key("revoked", "version")]
        version, *news = cast("list[str | list[str]]", await self._ask(_REVOKED, keys, self._version))
        if news:
            self._version, self._known = str(version), frozenset(news[0])
        return self._known

    async def hold(self, user: str, held: Held, count: int) -> int:
        """See `Store.hold`."""
        keys = [self._key(user, f"held:{held.name.lower()}")]
        return await self._number(_HOLD, keys, self.server, str(count), _micro(self.length))

    def _key(self, owner: str, what: str) -> str:
        return f"{self.prefix}{{{quote(owner, safe='')}}}:{what}"

    async def _number(self, script: str, keys: Sequence[str], *arguments: str) -> int:
        """Return a number, 0 for none."""
        answer = await self._ask(script, keys, *arguments)
        return int(cast("int | str | None", answer) or 0)

    async def _ask(self, script: str, keys: Sequence[str], *arguments: str) -> object:
        """Run *script* when it is our turn; raises `StoreAwayError`."""
        async with self._turn(self._turns):
            return await self._ask_now(script, keys, arguments)

    @asynccontextmanager
    async def _turn(self, turns: trio.CapacityLimiter) -> AsyncGenerator[None]:
        """Have one of *turns* for the length of a block; raises `StoreAwayError`."""
        with trio.move_on_after(QUEUE) as waiting:
            await turns.acquire()
        if waiting.cancelled_caught:
            raise StoreAwayError(f"Redis is asked too much: there was no turn in {QUEUE:g} s")
        try:
            yield
        finally:
            turns.release()

    async def _ask_now(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> object:
        if trio.current_time() < self._rests_until:
            raise StoreAwayError(self.trouble)
        if script not in self._scripts:
            self._scripts[script] = self.redis.register_script(script)
        why = f"Redis has not answered in {LIMIT:g} s"
        with trio.move_on_after(LIMIT):
            try:
                answer = await self._scripts[script].execute(keys, arguments)
            except (RedisError, OSError) as exc:
                # What connecting has met may be in it; of the URL, which may hold a password, there is nothing.
                why = f"Redis: {exc}"
            else:
                self._note("")
                return answer
        self._rests_until = trio.current_time() + REST
        self._note(why)
        raise StoreAwayError(why)

    def _note(self, trouble: str) -> None:
        changed = bool(trouble) != bool(self.trouble)
        self.trouble = trouble
        if changed:
            self.tell(trouble)


def _micro(seconds: float) -> str:
    return str(round(seconds * _MICRO))


def _agent(key: AgentKey) -> str:
    return f"{key.name}\0{key.instance}"
