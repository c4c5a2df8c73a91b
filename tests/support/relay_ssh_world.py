"""A relay that speaks SSH, an agent with a real sshd behind it, and a client: all of it can be cut and started anew."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import trio
import trio.testing

from tests.support.sshd import HOST, Sshd
from tests.support.websockets import open_websocket_pair
from tunnel_relay.agent.offering import Offering
from tunnel_relay.background import open_background
from tunnel_relay.client.reaching import Reaching
from tunnel_relay.errors import LinkLostError, SshKeyError
from tunnel_relay.link import Link
from tunnel_relay.policy.access import Access
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.record import Record
from tunnel_relay.server.relay_ssh import RelaySsh, RelaySshSettings
from tunnel_relay.server.ssh_login import RelaySshEvent, SshAccount
from tunnel_relay.server.switch import Port, Switch
from tunnel_relay.ssh.hostkeys import KnownHosts
from tunnel_relay.ssh.keys import generate_identity

SETTINGS = SessionSettings(window=64_000, kept=256_000, grace=20)
ME = generate_identity("the relay's key")


@attrs.define(eq=False)
class RelaySshWorld:
    """A relay, an agent of alice, and a client; both dial again when they are cut."""

    nursery: trio.Nursery
    agent: Offering
    client: Reaching
    known_hosts: KnownHosts
    account: SshAccount | SshKeyError | None
    settings: RelaySshSettings
    record: Record | None = None
    access: Access = attrs.field(factory=Access)
    switch: Switch = attrs.field(factory=Switch)
    relay: RelaySsh = attrs.field(init=False)
    told: list[RelaySshEvent] = attrs.field(factory=list[RelaySshEvent])
    cuts: dict[str, trio.CancelScope] = attrs.field(factory=dict[str, trio.CancelScope])
    links: int = 0
    # Who does not dial again until it is back.
    away: set[str] = attrs.field(factory=set[str])
    back: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self) -> None:
        """Run the relay, and start it anew where it is cut."""
        while True:
            with trio.CancelScope() as self.cuts["relay"]:
                async with open_background() as nursery:
                    self.switch = Switch()
                    self.relay = RelaySsh(
                        nursery,
                        self.switch,
                        self.access,
                        self.find_account,
                        self.told.append,
                        self.settings,
                        self.record,
                    )
                    self.switch.keeper = self.relay.keep
                    await trio.sleep_forever()

    async def find_account(self, user: str, agent: str) -> SshAccount | None:
        """Return how the relay logs in."""
        await trio.lowlevel.checkpoint()
        assert (user, agent) in (("alice", "nas"), ("alice", "pi"))
        if isinstance(self.account, SshKeyError):
            raise self.account
        return self.account

    async def dial(self, who: str, end: Offering | Reaching, port: Callable[[], Port]) -> None:
        """Keep *end* linked to the relay."""
        while True:
            if who in self.away:
                await self.back.wait()
            there = port()
            with trio.CancelScope() as self.cuts[who]:
                async with open_websocket_pair() as (near, far), trio.open_nursery() as nursery:
                    self.links += 1
                    distant = there.link = Link(far, there.heed)
                    if there.agent is not None:
                        there.switch.register(there)
                    link = Link(near, end.heed)
                    end.attach(link)

                    async def run(each: Link) -> None:
                        with suppress(LinkLostError):
                            await each.run()

                    nursery.start_soon(run, distant)
                    nursery.start_soon(run, link)
            end.detach()
            if there.agent is not None:
                there.switch.unregister(there)
            there.lose(f"the {who}'s connection is lost")

    def cut(self, who: str) -> None:
        """Cut the link of the client or the agent."""
        self.cuts[who].cancel()

    def restart(self) -> None:
        """End the relay, and start another one in its place."""
        for scope in self.cuts.values():
            scope.cancel()

    async def exchange(self, target: str, data: bytes) -> bytes:
        """Send *data* to *target*, and return what comes back."""
        stream = self.client.open_stream(target)
        await stream.wait_accepted()
        received = bytearray()
        async with stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            while piece := await stream.receive_some():
                received += piece
        return bytes(received)


@asynccontextmanager
async def open_relay_ssh_world(
    sshd: Sshd,
    directory: Path,
    *,
    user: str = "alice",
    tier: str = "premium",
    settings: RelaySshSettings | None = None,
    record: Record | None = None,
    access: Access | None = None,
) -> AsyncGenerator[RelaySshWorld]:
    """Run it all; *user* is the client's, with that *tier*."""
    async with open_background() as nursery:
        agent = Offering(nursery, {"ssh": (HOST, sshd.port)}, "one", SETTINGS)
        client = Reaching(nursery, "nas", SETTINGS, Mode.RELAY_SSH)
        known_hosts = KnownHosts(directory / "known_hosts")
        world = RelaySshWorld(
            nursery,
            agent,
            client,
            known_hosts,
            SshAccount(sshd.user, [ME], known_hosts),
            settings or RelaySshSettings(session=SETTINGS),
            record,
            access or Access(),
        )
        nursery.start_soon(world.serve)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(
            world.dial, "agent", agent, lambda: Port(world.switch, "alice", agent="nas", instance="one")
        )
        nursery.start_soon(world.dial, "client", client, lambda: Port(world.switch, user, tier=tier))
        await trio.testing.wait_all_tasks_blocked()
        yield world
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_echo() -> AsyncGenerator[str]:
    """Listen on loopback, and send back what comes; yields HOST:PORT."""

    async def echo(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                await stream.send_all(data)
            await stream.send_eof()

    async with open_background() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        port: int = listener.socket.getsockname()[1]
        yield f"{HOST}:{port}"
        nursery.cancel_scope.cancel()
