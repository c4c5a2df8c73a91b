"""Two ends of a session over links that come and go; the links are WebSockets over memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from tests.support.websockets import open_websocket_pair
from tunnel_relay.asking import AskedRequest
from tunnel_relay.background import open_background
from tunnel_relay.errors import LinkLostError
from tunnel_relay.link import Link, LinkSettings
from tunnel_relay.protocol.session import SessionSettings
from tunnel_relay.relay_stream import RelayStream
from tunnel_relay.sessions import LiveSession

SETTINGS = SessionSettings(window=100_000, kept=400_000)


@attrs.define(eq=False)
class Couple:
    """A client and an agent; `connect` gives them a link until it is cut."""

    nursery: trio.Nursery
    client: LiveSession
    agent: LiveSession
    incoming: trio.MemoryReceiveChannel[tuple[RelayStream, bytes]]
    questions: trio.MemoryReceiveChannel[AskedRequest]
    labels: int = 0
    link_settings: LinkSettings = attrs.field(factory=LinkSettings)
    cut_scope: trio.CancelScope | None = None

    async def connect(self) -> None:
        """Give both ends a new link."""
        self.cut()
        await self.nursery.start(self._carry)

    def cut(self) -> None:
        """Lose what is on its way."""
        if self.cut_scope is not None:
            self.cut_scope.cancel()
            self.cut_scope = None
            self.client.detach()
            self.agent.detach()

    async def _carry(self, task_status: trio.TaskStatus[None]) -> None:
        self.labels += 1
        label = self.labels
        with trio.CancelScope() as self.cut_scope:
            async with open_websocket_pair() as (near, far), trio.open_nursery() as nursery:
                here = Link(near, self.client.receive, self.link_settings)
                there = Link(far, self.agent.receive, self.link_settings)
                received = self.client.session.received, self.agent.session.received
                self.client.attach(here, label, received[1])
                self.agent.attach(there, label, received[0])

                async def run(link: Link) -> None:
                    with suppress(LinkLostError):
                        await link.run()

                nursery.start_soon(run, here)
                nursery.start_soon(run, there)
                task_status.started()

    async def stream(self) -> tuple[RelayStream, RelayStream]:
        """Return both ends of an open stream."""
        near = self.client.open_stream(b"ssh")
        far, request = await self.incoming.receive()
        assert request == b"ssh"
        far.accept()
        await near.wait_accepted()
        return near, far


@asynccontextmanager
async def open_couple(settings: SessionSettings = SETTINGS) -> AsyncGenerator[Couple]:
    """Connect a client and an agent."""
    send, receive = trio.open_memory_channel[tuple[RelayStream, bytes]](100)

    def opened(stream: RelayStream, request: bytes) -> None:
        send.send_nowait((stream, request))

    client = LiveSession.new(initiator=True, settings=settings, opened=opened)
    ask, asked = trio.open_memory_channel[AskedRequest](100)
    agent = LiveSession.new(initiator=False, settings=settings, opened=opened, asked=ask.send_nowait)
    async with open_background() as nursery:
        nursery.start_soon(client.run)
        nursery.start_soon(agent.run)
        couple = Couple(nursery, client, agent, receive, asked)
        await couple.connect()
        yield couple
        nursery.cancel_scope.cancel()
