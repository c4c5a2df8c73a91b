"""Going back to a better server, beside the link to another one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from tests.support.dialings import Server, Tokens, Watched, serving, token, watching
from tests.support.tunnels import eventually
from tunnel_relay import dialing
from tunnel_relay.dial_events import Linked, LinkLost
from tunnel_relay.policy.selector import Endpoint

# So many looks at its health take longer than a server has to be well before it is gone back to.
WELL = 8


@attrs.frozen
class World:
    """A first server that does not work and a second one that is used."""

    first: Server
    second: Server
    it: Watched

    async def go_back(self) -> None:
        """Expect the first one to be gone back to, without a loss."""
        linked = await self.it.wait_for(Linked, 2)
        assert isinstance(linked, Linked)
        assert linked.url == self.first.url
        assert not [event for event in self.it.events if isinstance(event, LinkLost)]
        assert len(self.it.end.attached) == 2


@asynccontextmanager
async def open_world(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[World]:
    monkeypatch.setattr(dialing, "STAY", 0.01)
    first, second = Server(status=b"503 Busy"), Server()
    async with serving(first, second):
        endpoints = [Endpoint(url=first.url), Endpoint(url=second.url, priority=2)]
        async with watching(endpoints, Tokens([token()])) as it:
            await it.wait_for(Linked)
            first.heads.clear()
            yield World(first, second, it)


async def test_streams_that_would_end_are_not_cut_to_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_world(monkeypatch) as world:
        world.it.end.stays = True
        world.first.status = b""
        await eventually(lambda: len(world.first.heads) > WELL)
        assert not world.first.links
        assert len(world.it.end.attached) == 1
        world.it.end.stays = False
        await world.go_back()


async def test_streams_that_begin_meanwhile_are_not_cut_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_world(monkeypatch) as world:
        world.first.hold, world.first.status = trio.Event(), b""
        await world.first.tried.wait()
        world.it.end.stays = True
        world.first.hold.set()
        asked = len(world.first.heads)
        await eventually(lambda: len(world.first.heads) > asked + 2)
        assert len(world.it.end.attached) == 1
        world.it.end.stays = False
        await world.go_back()


async def test_a_link_that_is_lost_meanwhile_is_dialled_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_world(monkeypatch) as world:
        world.first.hold, world.first.status = trio.Event(), b""
        await world.first.tried.wait()
        # From now on it answers nothing at all.
        with trio.fail_after(3):
            await world.second.websockets[0].aclose(1001, "upgraded")
            await world.it.wait_for(LinkLost)
            linked = await world.it.wait_for(Linked, 2)
        assert isinstance(linked, Linked)
        assert linked.url == world.second.url
        assert world.it.end.detached == 1
