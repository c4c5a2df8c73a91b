"""Clients and agents of a relay, by the library: ``python -m benchmarks.relay_client FILE`` obeys commands.

There is one command in JSON per line, and one answer. FILE says where the relay is (see `benchmarks.relay_site`).
"""

from __future__ import annotations

import json
import random
import ssl
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from benchmarks import wire
from benchmarks.load import PING, WORKERS
from benchmarks.payload import PATTERN
from benchmarks.relay_cable import Cable, open_cable
from tunnel_relay.agent.running import AgentEvent, AgentSettings, open_agent
from tunnel_relay.client.service import TunnelEvent, TunnelService, TunnelSettings, open_tunnel_service
from tunnel_relay.dial_events import LinkLost
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.errors import RelayError
from tunnel_relay.policy.backoff import PROVEN
from tunnel_relay.policy.outbox import OutboxSettings, Priority
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.requests import Status

# What a request gets in answer.
ANSWER = 64
# So many links are in the making at any time.
LINKING = 32
# Who loses a link sooner than this takes it for a bad one, and is in no hurry.
PAUSE = PROVEN + 0.5
# What passes over a stream while its longest silence is looked for: one of these, and a rest.
REST = 0.01
# More than anybody takes to notice.
DETECTION = 55.0

Answer = dict[str, float]
# Says the answer, and returns when what is held need not be held any more.
Done = Callable[[Answer], Awaitable[None]]
Way = Callable[[], AbstractAsyncContextManager[object]]


@attrs.define(eq=False)
class Site:
    """Where the relay is, and how to get there."""

    url: str
    folder: Path = attrs.field(converter=Path)
    agent: str
    services: dict[str, tuple[str, int]]
    context: ssl.SSLContext = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.context = ssl.create_default_context(cafile=self.folder / "cert.pem")

    @property
    def port(self) -> int:
        """Where the server listens."""
        return int(self.url.rpartition(":")[2])

    async def client_token(self, *, anew: bool) -> str:
        """Return what clients show."""
        return await self._token("client", anew=anew)

    async def agent_token(self, *, anew: bool) -> str:
        """Return what agents show."""
        return await self._token("agent", anew=anew)

    async def _token(self, scope: str, *, anew: bool) -> str:
        del anew
        await trio.lowlevel.checkpoint()
        return (self.folder / f"{scope}.token").read_text(encoding="ascii")

    def dial(self, cable: Cable | None = None) -> DialSettings:
        """Return how to get to the relay, through *cable* if there is one."""
        url = self.url if cable is None else f"wss://127.0.0.1:{cable.port}"
        return DialSettings(endpoints=[Endpoint(url=url)], ssl_context=self.context)

    @asynccontextmanager
    async def tunnel(
        self,
        *,
        agent: str = "",
        file: Path | None = None,
        cable: Cable | None = None,
        notify: Callable[[TunnelEvent], None] = lambda _event: None,
    ) -> AsyncGenerator[TunnelService]:
        """Be connected for the block."""
        outbox = OutboxSettings(items=100_000)
        settings = TunnelSettings(dial=self.dial(cable), agent=agent or self.agent, outbox=outbox, file=file)
        async with open_tunnel_service(settings, self.client_token, notify=notify) as tunnel:
            await tunnel.connect(patient=True)
            yield tunnel

    @asynccontextmanager
    async def offering(
        self,
        name: str,
        *,
        cable: Cable | None = None,
        notify: Callable[[AgentEvent], None] = lambda _event: None,
    ) -> AsyncGenerator[None]:
        """Be an agent of that *name* for the block."""
        settings = AgentSettings(name=name, services=self.services, dial=self.dial(cable))
        async with open_agent(
            settings,
            self.agent_token,
            rng=random.SystemRandom().random,
            unix_time=time.time,
            notify=notify,
        ) as agent:
            while not agent.dialing.linked:
                await agent.dialing.changed.wait()
            yield


async def connect_rate(site: Site, *, count: int) -> Answer:
    """Open *count* streams, `WORKERS` at a time, each until the target's greeting is there."""
    each = max(count // WORKERS, 1)

    async def greet(tunnel: TunnelService) -> None:
        for _ in range(each):
            async with await tunnel.open_stream("greeter") as stream:
                if await stream.receive_some(1) != wire.GREETING:
                    raise ConnectionResetError("no greeting")

    async with site.tunnel() as tunnel:
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(greet, tunnel)
        return {"seconds": time.perf_counter() - began, "count": each * WORKERS}


async def requests(site: Site, *, count: int, high: bool = False, size: int = ANSWER) -> Answer:
    """Make *count* requests, each of which is answered with *size* bytes."""
    priority = Priority.HIGH if high else Priority.NORMAL
    payload = wire.REQUEST.pack(wire.DOWN, size)
    took: list[float] = []
    # As many wait as an outbox takes without complaint, so that there is always a next one.
    turns = iter(range(count))

    async def make(tunnel: TunnelService) -> None:
        for _ in turns:
            began = time.perf_counter()
            response = await tunnel.forward_request("bulk", payload, priority=priority, most=size)
            if response.status is not Status.DONE or bytes(response.payload) != PATTERN[:size]:
                raise ConnectionResetError(f"a request: {response.status.name} {response.detail}")
            took.append((time.perf_counter() - began) * 1000)

    async with site.tunnel(file=site.folder / "outbox.db" if high else None) as tunnel:
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(min(count, 200)):
                nursery.start_soon(make, tunnel)
        return {"seconds": time.perf_counter() - began, "count": len(took), **percentiles(took)}


async def ping(site: Site, *, count: int) -> Answer:
    """Send 64 bytes to and fro *count* times over one stream; microseconds."""
    took: list[float] = []
    async with site.tunnel() as tunnel, await tunnel.open_stream("bulk") as stream:
        await stream.send_all(wire.REQUEST.pack(wire.ECHO, 0))
        for _ in range(count):
            began = time.perf_counter()
            await echo(stream)
            took.append((time.perf_counter() - began) * 1e6)
    return percentiles(took)


async def setups(site: Site, *, count: int) -> Answer:
    """Connect anew *count* times, each until the first byte of a stream has come; milliseconds."""
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        async with site.tunnel() as tunnel, await tunnel.open_stream("greeter") as stream:
            await stream.receive_some(1)
            took.append((time.perf_counter() - began) * 1000)
    return percentiles(took)


async def hold_streams(site: Site, done: Done, *, count: int) -> None:
    """Have *count* streams at a time, over each of which something has passed to and fro."""
    began = time.perf_counter()
    limiter = trio.CapacityLimiter(LINKING)

    async with site.tunnel() as tunnel:
        streams: list[trio.abc.HalfCloseableStream] = []

        async def begin() -> None:
            async with limiter:
                stream = await tunnel.open_stream("bulk")
                streams.append(stream)
                await stream.send_all(wire.REQUEST.pack(wire.ECHO, 0))

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(begin)
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(echo, stream)
        await done({"seconds": time.perf_counter() - began, "count": len(streams)})
        for stream in streams:
            await trio.aclose_forcefully(stream)


async def hold_agents(site: Site, done: Done, *, count: int) -> None:
    """Be *count* agents at a time; a stream to one of the last of them shows that they are there."""
    ways = [partial(site.offering, f"agent-{number}") for number in range(count)]
    await _hold_links(site, done, ways, proof=f"agent-{count - 1}")


async def hold_clients(site: Site, done: Done, *, count: int) -> None:
    """Be *count* clients at a time, each with a session."""
    await _hold_links(site, done, [site.tunnel] * count, proof="")


async def _hold_links(site: Site, done: Done, ways: Sequence[Way], proof: str) -> None:
    turns = trio.Semaphore(LINKING)
    missing, there, over = len(ways), trio.Event(), trio.Event()
    began = time.perf_counter()

    async def hold(way: Way) -> None:
        nonlocal missing
        await turns.acquire()
        async with way():
            turns.release()
            missing -= 1
            if not missing:
                there.set()
            await over.wait()

    async with trio.open_nursery() as nursery:
        for way in ways:
            nursery.start_soon(hold, way)
        await there.wait()
        seconds = time.perf_counter() - began
        async with site.tunnel(agent=proof) as tunnel, await tunnel.open_stream("greeter") as stream:
            await stream.receive_some(1)
        await done({"seconds": seconds, "count": len(ways)})
        over.set()


async def resume(site: Site, *, count: int, who: str) -> Answer:
    """Cut the connection of *who* (client, agent) under a stream *count* times; milliseconds until it goes on."""
    took: list[float] = []
    async with (
        open_cable(site.port) as cable,
        site.offering("cut", cable=cable if who == "agent" else None),
        site.tunnel(agent="cut", cable=cable if who == "client" else None) as tunnel,
        await tunnel.open_stream("bulk") as stream,
    ):
        await stream.send_all(wire.REQUEST.pack(wire.ECHO, 0))
        for _ in range(count):
            await echo(stream)
            await trio.sleep(PAUSE)
            cable.cut()
            began = time.perf_counter()
            await echo(stream)
            took.append((time.perf_counter() - began) * 1000)
    return percentiles(took)


async def gap(site: Site, *, seconds: float) -> Answer:
    """Let something pass over a stream for so long, or until something has passed again; the longest silence."""
    longest = 0.0
    async with site.tunnel() as tunnel, await tunnel.open_stream("bulk") as stream:
        await stream.send_all(wire.REQUEST.pack(wire.ECHO, 0))
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            await echo(stream)
            longest = max(longest, time.perf_counter() - began)
            await trio.sleep(REST)
    return {"gap": longest}


async def detect(site: Site) -> Answer:
    """Let nothing pass to a client and an agent any more; seconds until each has noticed, and the server."""
    noticed: dict[str, float] = {}
    all_noticed = trio.Event()
    began = 0.0

    def note(who: str) -> None:
        if began and who not in noticed:
            noticed[who] = time.perf_counter() - began
            if len(noticed) == 3:  # client, agent, server
                all_noticed.set()

    def heed(who: str, event: TunnelEvent | AgentEvent) -> None:
        if isinstance(event, LinkLost):
            note(who)

    async def watch(tunnel: TunnelService) -> None:
        # It is linked, and hears from the server that the agent is gone.
        while tunnel.state.connected:  # noqa: ASYNC110 - it has no event for that
            await trio.sleep(REST)
        note("server")

    async with (
        open_cable(site.port) as cable,
        site.offering("still", cable=cable, notify=partial(heed, "agent")),
        site.tunnel(cable=cable, notify=partial(heed, "client")),
        site.tunnel(agent="still") as onlooker,
        trio.open_nursery() as nursery,
    ):
        began = time.perf_counter()
        cable.stall()
        nursery.start_soon(watch, onlooker)
        with trio.move_on_after(DETECTION):
            await all_noticed.wait()
        nursery.cancel_scope.cancel()
        cable.cut()
    return noticed


async def echo(stream: trio.abc.Stream) -> None:
    """Send 64 bytes to and fro."""
    await stream.send_all(PING)
    said = b""
    while len(said) < len(PING):
        piece = await stream.receive_some(len(PING) - len(said))
        if not piece:
            raise ConnectionResetError("the echo ended")
        said += piece
    if said != PING:
        raise ConnectionResetError("the echo differs")


def percentiles(took: list[float]) -> Answer:
    """Return p50, p95 and the most of what was *took*."""
    cuts = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else took * 99
    return {"p50": cuts[49], "p95": cuts[94], "most": max(took)}


DEEDS: dict[str, Callable[..., Awaitable[Answer]]] = {
    "connect_rate": connect_rate,
    "requests": requests,
    "ping": ping,
    "setups": setups,
    "resume": resume,
    "gap": gap,
    "detect": detect,
}
HELD: dict[str, Callable[..., Awaitable[None]]] = {
    "hold_streams": hold_streams,
    "hold_agents": hold_agents,
    "hold_clients": hold_clients,
}


async def obey(site: Site) -> None:
    """Obey until standard input ends; what is held is held until the next line."""
    lines = trio.wrap_file(sys.stdin)

    async def say_and_wait(answer: Answer) -> None:
        print(json.dumps(answer), flush=True)
        await lines.readline()

    while line := await lines.readline():
        command = json.loads(line)
        do = command.pop("do")
        answer: dict[str, object] = {}
        try:
            if do in HELD:
                await HELD[do](site, say_and_wait, **command)
            else:
                answer.update(await DEEDS[do](site, **command))
        except* (OSError, RelayError, trio.BrokenResourceError) as failures:
            leaf = next(_leaves(failures))
            answer = {"error": str(leaf) or repr(leaf)}
        print(json.dumps(answer), flush=True)


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def main() -> None:
    """Read the file, and obey."""
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    services = {name: (host, port) for name, (host, port) in found.pop("services").items()}
    trio.run(obey, Site(**found, services=services))


if __name__ == "__main__":
    main()
