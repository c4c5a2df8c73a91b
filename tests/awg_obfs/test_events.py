from __future__ import annotations

from typing import get_args

from awg_obfs.events import DeviceEvent, HandshakeCompleted, HandshakeSent
from tests.support.awg_world import OBFUSCATED, Couple, block


def test_no_event_of_a_session_s_life_shows_a_key_or_content() -> None:
    couple = Couple.meet(OBFUSCATED, preshared_keys=(b"p" * 32, b"p" * 32))
    couple.talk(block("secret"))
    couple.world.run(1000.0)

    events = couple.client.events + couple.server.events
    assert {HandshakeSent, HandshakeCompleted} <= {type(event) for event in events}
    for shown in map(repr, events):
        assert "secret" not in shown
        assert "pppp" not in shown
        for key in (couple.client.identity.public, couple.server.identity.public):
            assert repr(key)[2:10] not in shown
            assert key.hex() not in shown


def test_every_event_is_a_value() -> None:
    assert all(event.__hash__ is not None for event in get_args(DeviceEvent))
