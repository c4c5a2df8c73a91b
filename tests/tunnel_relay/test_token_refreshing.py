"""Tokens that expire while a link is up."""

from __future__ import annotations

import pytest

from tests.support.dialings import Server, Tokens, serving, token, watching
from tunnel_relay import token_refreshing
from tunnel_relay.dial_events import AuthenticationNeeded, LinkLost, TokenRefreshed
from tunnel_relay.policy.selector import Endpoint
from tunnel_relay.protocol.frames import FrameType


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_refreshing, "REFRESH_PAUSE", 0.01)


async def test_a_token_is_refreshed_in_band_before_it_expires() -> None:
    server, newer = Server(), token(number=1)
    async with serving(server), watching([Endpoint(url=server.url)], Tokens([token(1.5), newer])) as it:
        await it.wait_for(TokenRefreshed)
        await server.heard.wait()
        assert [(frame.type, bytes(frame.payload)) for frame in server.frames] == [
            (FrameType.REFRESH, newer.encode())
        ]
        assert not [event for event in it.events if isinstance(event, LinkLost)]


async def test_where_there_is_no_newer_token_a_person_is_asked_once() -> None:
    server = Server()
    old, newer = token(1.0), token(number=2)
    tokens = Tokens([old])
    async with serving(server), watching([Endpoint(url=server.url)], tokens) as it:
        asked = await it.wait_for(AuthenticationNeeded)
        assert asked == AuthenticationNeeded("the token expires soon, and there is no newer one")
        tokens.texts.append(newer)
        await it.wait_for(TokenRefreshed)
        assert len([event for event in it.events if isinstance(event, AuthenticationNeeded)]) == 1
