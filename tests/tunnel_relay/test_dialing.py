"""Links to real servers on loopback: which, when, and with what token."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from tests.support.dialings import NotingEnd, NotingRemains, Server, Tokens, serving, token, watching
from tests.support.relay_tokens import make_certificate
from tests.support.tunnels import eventually
from tunnel_relay.background import open_background
from tunnel_relay.category import Category
from tunnel_relay.dial_events import (
    AuthenticationNeeded,
    DialEvent,
    DialFailed,
    Linked,
    LinkLost,
)
from tunnel_relay.dial_settings import DialSettings
from tunnel_relay.dialing import Dialing
from tunnel_relay.errors import TokenUnavailableError, WebSocketClosedError, WebSocketError
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.greetings import GoAway, write
from tunnel_relay.protocol.upgrade import UNAUTHORIZED
from tunnel_relay.tls import server_tls


async def test_an_end_is_linked_and_hears_frames() -> None:
    server, text = Server(), token()
    async with (
        serving(server),
        watching([Endpoint(url=server.url)], Tokens([text]), query=[("agent", "n s")]) as it,
    ):
        await it.wait_for(Linked)
        assert it.dialing.linked
        assert it.dialing.reason == ""
        assert len(it.end.attached) == 1
        assert server.heads[0].startswith(b"GET /api/tunnel/connect?agent=n+s HTTP/1.1\r\n")
        assert f"Authorization: Bearer {text}".lower().encode() in server.heads[0].lower()
        it.end.attached[0].send(Frame(FrameType.HELLO, 1, payload=b"hello"))
        await server.heard.wait()
        server.links[0].send(Frame(FrameType.WELCOME, 1, payload=b"hi"))
        server.links[0].send(Frame(FrameType.GOAWAY, payload=write(GoAway(lost=False, detail="upgrading"))))
        await it.wait_for(Linked, 2)
        assert [(frame.type, frame.payload) for frame in it.end.frames] == [(FrameType.WELCOME, b"hi")]
        lost = await it.wait_for(LinkLost)
        assert lost == LinkLost(server.url, "upgrading", Category.SERVER)
        assert it.end.detached == 1
        assert it.dialing.reconnections == 1


async def test_a_link_that_breaks_is_dialled_again() -> None:
    server = Server()
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([token()])) as it:
        await it.wait_for(Linked)
        await server.websockets[0].aclose(1011, "out of memory")
        lost = await it.wait_for(LinkLost)
        assert isinstance(lost, LinkLost)
        assert "out of memory" in lost.reason
        assert lost.category is Category.SERVER
        await it.wait_for(Linked, 2)


async def test_a_refused_token_is_replaced_at_once() -> None:
    good = token(number=1)
    server = Server(accepted=[good])
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([token(), good])) as it:
        await it.wait_for(Linked)
        [failed] = [event for event in it.events if isinstance(event, DialFailed)]
        assert (failed.category, failed.rest) == (Category.AUTHENTICATION, 0)
        assert not [event for event in it.events if isinstance(event, AuthenticationNeeded)]


async def test_where_no_token_is_accepted_a_person_is_asked_once() -> None:
    server = Server(accepted=[])
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([token()])) as it:
        await it.wait_for(DialFailed, 4)
        asked = [event for event in it.events if isinstance(event, AuthenticationNeeded)]
        assert len(asked) == 1
        assert "401" in asked[0].reason
        assert "401" in it.dialing.reason
        assert not it.dialing.linked


async def test_without_a_token_nobody_is_asked_for_a_link() -> None:
    server = Server()
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([""])) as it:
        await it.wait_for(DialFailed, 2)
        assert not server.heads
        asked = [event for event in it.events if isinstance(event, AuthenticationNeeded)]
        assert asked == [AuthenticationNeeded("log in first")]


async def test_a_link_that_is_closed_for_its_token_is_dialled_with_another() -> None:
    server, newer = Server(), token(number=1)
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([token(), newer])) as it:
        await it.wait_for(Linked)
        await server.websockets[0].aclose(UNAUTHORIZED, "the token is revoked")
        lost = await it.wait_for(LinkLost)
        assert isinstance(lost, LinkLost)
        assert lost.category is Category.AUTHENTICATION
        await it.wait_for(Linked, 2)
        assert newer.encode() in server.heads[-1]


async def test_the_next_server_takes_over_and_the_first_one_is_gone_back_to() -> None:
    first, second = Server(status=b"503 Busy"), Server()
    async with serving(first, second):
        endpoints = [Endpoint(url=first.url), Endpoint(url=second.url, priority=2)]
        async with watching(endpoints, Tokens([token()])) as it:
            linked = await it.wait_for(Linked)
            assert isinstance(linked, Linked)
            assert linked.url == second.url
            [failed] = [event for event in it.events if isinstance(event, DialFailed)]
            assert failed.category is Category.SERVER
            assert it.dialing.state.failed_over_at is not None
            first.status = b""
            linked = await it.wait_for(Linked, 2)
            assert isinstance(linked, Linked)
            assert linked.url == first.url
            assert it.dialing.state.failed_over_at is None
            # Nothing was lost: the new link was there before the old one went.
            assert not [event for event in it.events if isinstance(event, LinkLost)]
            assert len(it.end.attached) == 2


async def test_streams_that_would_end_stay_with_a_server_that_says_goodbye() -> None:
    server = Server()
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([token()])) as it:
        await it.wait_for(Linked)
        it.end.stays = True
        server.links[0].send(Frame(FrameType.GOAWAY, payload=write(GoAway(lost=False, detail="upgrading"))))
        server.links[0].send(Frame(FrameType.WELCOME, 1))
        await eventually(lambda: bool(it.end.frames))
        assert it.dialing.linked
        await server.websockets[0].aclose(1001, "upgraded")
        await it.wait_for(Linked, 2)


async def test_who_stayed_leaves_when_nothing_would_end() -> None:
    server = Server()
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([token()])) as it:
        await it.wait_for(Linked)
        it.end.stays = True
        server.links[0].send(Frame(FrameType.GOAWAY, payload=write(GoAway(lost=False, detail="upgrading"))))
        server.links[0].send(Frame(FrameType.WELCOME, 1))
        await eventually(lambda: bool(it.end.frames))
        assert it.dialing.linked
        it.end.stays = False
        it.end.free.set()
        assert await it.wait_for(LinkLost) == LinkLost(server.url, "upgrading", Category.SERVER)
        await it.wait_for(Linked, 2)
        assert it.end.detached == 1


@pytest.mark.parametrize("cut", [False, True])
async def test_what_goes_on_over_a_link_that_was_left_keeps_it(cut: bool) -> None:
    server = Server()
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([token()])) as it:
        await it.wait_for(Linked)
        remains = it.end.remains = NotingRemains()
        server.links[0].send(Frame(FrameType.GOAWAY, payload=write(GoAway(lost=False, detail="upgrading"))))
        # Another link takes over while the first one is still there.
        await it.wait_for(Linked, 2)
        assert await it.wait_for(LinkLost) == LinkLost(server.url, "upgrading", Category.SERVER)
        server.links[0].send(Frame(FrameType.WELCOME, 1, payload=b"old"))
        server.links[1].send(Frame(FrameType.WELCOME, 1, payload=b"new"))
        await eventually(lambda: it.end.frames and remains.frames)
        assert [frame.payload for frame in remains.frames] == [b"old"]
        assert [frame.payload for frame in it.end.frames] == [b"new"]
        assert (it.end.detached, remains.detached, it.dialing.lingers) == (0, 0, True)
        if cut:
            await server.websockets[0].aclose(1001, "upgraded")
        else:
            remains.over.set()
        await eventually(lambda: remains.detached)
        assert not it.dialing.lingers
        with pytest.raises(WebSocketClosedError):
            await server.websockets[0].receive()
        assert it.dialing.linked
        assert len([event for event in it.events if isinstance(event, LinkLost)]) == 1
        assert it.end.detached == 0


async def test_a_link_is_dialled_anew_with_what_is_known_now() -> None:
    first, second = token(number=1), token(number=2)
    server, tokens = Server(), Tokens([first])
    async with serving(server), watching([Endpoint(url=server.url)], tokens) as it:
        await it.wait_for(Linked)
        tokens.texts[0] = second
        it.dialing.dial_anew("the token is another one")
        assert await it.wait_for(LinkLost) == LinkLost(
            server.url, "the token is another one", Category.SERVER
        )
        await it.wait_for(Linked, 2)
        assert second.encode() in server.heads[-1]


async def test_streams_that_wait_shorten_the_rest(autojump_clock: MockClock) -> None:
    """Without them, the rests grow to a minute."""
    dialled: list[float] = []

    class Refusing(Dialing):
        async def _carry(self, endpoint: Endpoint, *, task_status: trio.TaskStatus[None]) -> None:
            dialled.append(trio.current_time())
            await trio.lowlevel.checkpoint()
            self._failed(endpoint, WebSocketError("refused"))
            task_status.started()

    for wanted, fewest in ((False, 5), (True, 20)):
        dialled.clear()
        it = Refusing(
            NotingEnd(wanted=wanted),
            DialSettings(endpoints=[Endpoint(url="ws://relay.example")]),
            Tokens([token()]),
            rng=lambda: 0.5,
            unix_time=time.time,
            notify=lambda _event: None,
        )
        with trio.move_on_after(110):
            await it.run()
        assert fewest <= len(dialled) < fewest + 5


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def say_nothing(_stream: trio.SocketStream) -> None:
        await trio.sleep(math.inf)

    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        end = NotingEnd()
        events: list[DialEvent] = []
        done = trio.Event()

        def notify(event: DialEvent) -> None:
            events.append(event)
            done.set()

        settings = DialSettings(endpoints=[Endpoint(url=url)], connect=0.05)
        it = Dialing(end, settings, Tokens([token()]), rng=lambda: 0.5, unix_time=time.time, notify=notify)
        nursery.start_soon(it.run)
        with trio.fail_after(10):
            await done.wait()
        [failed, *_] = events
        assert isinstance(failed, DialFailed)
        assert failed.reason == "no answer within 0.05 s"
        assert failed.category is Category.NETWORK


async def test_a_certificate_that_is_not_believed_is_for_people() -> None:
    context = make_certificate().server_context()

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await server_tls(stream, context).do_handshake()

    async with open_background() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"wss://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with watching([Endpoint(url=url)], Tokens([token()])) as it:
            failed = await it.wait_for(DialFailed)
            assert isinstance(failed, DialFailed)
            assert failed.reason.startswith("127.0.0.1: its certificate is not believed: ")
            assert failed.category is Category.CONFIGURATION
            # There is no hurry.
            assert failed.rest > 0
            assert not [event for event in it.events if isinstance(event, AuthenticationNeeded)]


async def test_who_gives_a_token_has_more_time_than_the_server() -> None:
    refused: list[DialEvent] = []

    async def ask_a_person(*, anew: bool) -> str:
        del anew
        await trio.sleep(0.3)
        return token()

    server = Server()
    async with serving(server), open_background() as nursery:
        settings = DialSettings(endpoints=[Endpoint(url=server.url)], connect=0.2)
        it = Dialing(
            NotingEnd(),
            settings,
            ask_a_person,
            rng=lambda: 0.5,
            unix_time=time.time,
            notify=refused.append,
        )
        nursery.start_soon(it.run)
        with trio.fail_after(10):
            await eventually(lambda: refused)
        assert [type(event) for event in refused] == [Linked]


async def test_a_token_that_was_refused_is_not_shown_again_where_there_is_no_other_yet() -> None:
    old, good = token(), token(number=1)
    server = Server(accepted=[good])
    asked: list[bool] = []

    async def give(*, anew: bool) -> str:
        await trio.lowlevel.checkpoint()
        asked.append(anew)
        if anew and len(asked) < 4:
            raise TokenUnavailableError("log in first")
        return good if anew else old

    async with serving(server), watching([Endpoint(url=server.url)], give) as it:
        await it.wait_for(Linked)
    assert asked == [False, True, True, True]
    assert len(server.heads) == 2
