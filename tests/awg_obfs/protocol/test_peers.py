from __future__ import annotations

from awg_obfs.protocol.peers import MAX_STAGED
from tests.support.awg_world import Couple, block


def test_a_peer_does_not_show_its_key() -> None:
    couple = Couple.meet()
    shown = repr(couple.to_server)

    assert "name='server'" in shown
    assert "key" not in shown
    assert "timestamp" not in shown


def test_what_waits_for_a_session_is_bounded_and_the_oldest_goes() -> None:
    couple = Couple.meet()
    couple.world.loses = lambda _datagram: True
    for number in range(MAX_STAGED + 5):
        couple.say(block(str(number)))
    assert len(couple.to_server.staged) == MAX_STAGED

    couple.world.loses = lambda _datagram: False
    couple.world.run(6.0)
    assert couple.server.received == [block(str(number)) for number in range(5, MAX_STAGED + 5)]


def test_a_session_is_one_to_send_with() -> None:
    couple = Couple.meet()
    assert not couple.to_server.has_session
    couple.talk(block("hello"))

    assert couple.to_server.has_session
    assert couple.to_client.has_session
