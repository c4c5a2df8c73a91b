from __future__ import annotations

import pytest

from awg_obfs.events import (
    CookieReceived,
    CookieSent,
    DatagramRejected,
    HandshakeAnswered,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeFault,
    HandshakeSent,
    PeerMoved,
    Rejection,
    UnderLoad,
)
from awg_obfs.protocol.load import QUEUED_UNDER_LOAD
from awg_obfs.protocol.noise import PrivateKey, Role
from awg_obfs.protocol.parameters import parameters_from_mapping
from tests.support.awg_world import CLIENT, OBFUSCATED, SERVER, Couple, World, block

HELLO = block("hello")


def initiation_of(couple: Couple) -> bytes:
    """Return the client's next initiation, which does not arrive."""
    couple.world.loses = lambda _datagram: True
    sent = len(couple.client.told(HandshakeSent))
    couple.client.device.rehandshake(couple.to_server, couple.world.now)
    while len(couple.client.told(HandshakeSent)) == sent:
        couple.world.run(0.1)
    couple.world.loses = lambda _datagram: False
    return couple.client.sent[-1]


def test_both_sides_learn_of_a_handshake() -> None:
    couple = Couple.meet(OBFUSCATED)
    couple.talk(HELLO)

    assert couple.client.told(HandshakeSent) == [HandshakeSent(couple.to_server, 1, SERVER)]
    assert couple.client.told(HandshakeCompleted) == [
        HandshakeCompleted(couple.to_server, Role.INITIATOR, SERVER)
    ]
    assert couple.server.told(HandshakeAnswered) == [HandshakeAnswered(couple.to_client, CLIENT)]
    assert couple.server.told(HandshakeCompleted) == [
        HandshakeCompleted(couple.to_client, Role.RESPONDER, CLIENT)
    ]
    assert couple.to_server.last_handshake is not None
    assert couple.to_server.round_trip == pytest.approx(2 * couple.world.delay)
    assert couple.to_client.round_trip == pytest.approx(2 * couple.world.delay)
    assert couple.server.told(PeerMoved) == [PeerMoved(couple.to_client, None, CLIENT)]


def test_initiations_go_out_behind_signatures_and_junk_every_time() -> None:
    couple = Couple.meet(OBFUSCATED)
    couple.world.loses = lambda _datagram: True
    couple.talk(HELLO)
    couple.world.run(6.0)

    first, second = couple.client.sent[:5], couple.client.sent[5:]
    for batch in (first, second):
        assert len(batch) == 5
        assert batch[0].startswith(b"\xc0\xff")
        assert all(10 <= len(junk) <= 30 for junk in batch[1:4])
        assert len(batch[4]) == 15 + 148
    assert not set(first) & set(second)
    assert [event.attempt for event in couple.client.told(HandshakeSent)] == [1, 2]


def test_an_initiation_played_again_is_not_answered() -> None:
    couple = Couple.meet(OBFUSCATED)
    initiation = initiation_of(couple)
    couple.world.carry(CLIENT, SERVER, initiation)
    couple.world.run(1.0)
    assert len(couple.server.sent) == 1

    for _ in range(3):
        couple.world.carry(("198.51.100.1", 5), SERVER, initiation)
    couple.world.run(1.0)
    assert len(couple.server.sent) == 1
    assert couple.to_client.endpoint == CLIENT
    assert couple.server.device.rejections[Rejection.OLD_TIMESTAMP] == 3


def test_nor_after_a_restart_if_the_last_timestamp_was_kept() -> None:
    couple = Couple.meet(OBFUSCATED)
    initiation = initiation_of(couple)
    couple.world.carry(CLIENT, SERVER, initiation)
    couple.world.run(1.0)
    couple.restart_server(couple.to_client.last_timestamp)
    couple.world.carry(CLIENT, SERVER, initiation)
    couple.world.run(1.0)

    assert couple.server.sent == []
    assert couple.server.device.rejections[Rejection.OLD_TIMESTAMP] == 1


def test_a_clock_that_was_set_back_does_not_lock_us_out() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.clock_offset = -3600.0
    couple.world.run(300.0)
    couple.talk(HELLO)

    assert couple.server.received == [HELLO, HELLO]


def test_initiations_that_come_in_a_heap_are_not_all_worked_on() -> None:
    """A recorded initiation's successor may be good, but not 20 ms later."""
    couple = Couple.meet()
    first, second = initiation_of(couple), initiation_of(couple)
    assert first != second
    couple.world.carry(CLIENT, SERVER, first)
    couple.world.carry(CLIENT, SERVER, second)
    couple.world.run(0.1)

    assert couple.server.device.rejections[Rejection.TOO_OFTEN] == 1
    assert len(couple.server.told(HandshakeAnswered)) == 1


@pytest.mark.parametrize("case", ["unknown peer", "wrong server key", "random", "altered"])
def test_strangers_get_no_answer(case: str) -> None:
    world = World()
    server = world.add_station(SERVER, OBFUSCATED)
    stranger = world.add_station(CLIENT, OBFUSCATED)
    key = PrivateKey(b"x" * 32).public if case == "wrong server key" else server.identity.public
    peer = stranger.device.add_peer(key, endpoint=SERVER)
    if case == "altered":
        server.device.add_peer(stranger.identity.public)
    world.loses = lambda datagram: case in {"random", "altered"}
    stranger.device.send(peer, [HELLO], world.now)
    world.run(0.5)
    world.loses = lambda datagram: False
    initiation = stranger.sent[-1]
    for position in range(15 + 4, len(initiation)) if case in {"random", "altered"} else ():
        datagram = bytearray(initiation if case == "altered" else world.rng.randbytes(len(initiation)))
        datagram[position] ^= 0x80
        world.carry(CLIENT, SERVER, bytes(datagram))
    world.run(0.4)

    # Altering MAC2 alone, which counts under load only, leaves a good initiation.
    answers = 1 if case == "altered" else 0
    assert len(server.sent) == answers
    assert server.device.rejections.total() >= 1
    expected = Rejection.UNKNOWN_PEER if case == "unknown peer" else Rejection.BAD_MAC1
    assert case == "random" or server.device.rejections[expected] >= 1


def test_who_knows_the_public_keys_of_both_cannot_pretend_to_be_one() -> None:
    couple = Couple.meet()
    mallory = couple.world.add_station(("198.51.100.1", 5))
    mallory.identity.public = couple.client.identity.public
    to_server = mallory.device.add_peer(couple.server.identity.public, endpoint=SERVER)
    mallory.device.rehandshake(to_server, couple.world.now)
    couple.world.run(1.0)

    assert couple.server.device.rejections[Rejection.UNREADABLE] == 1
    assert couple.server.sent == []
    assert couple.to_client.last_timestamp == b""


def test_the_clock_of_a_signature_is_read_when_it_is_sent() -> None:
    couple = Couple.meet(parameters_from_mapping({"i1": "<t><c>"}))
    couple.talk(HELLO)
    first = couple.client.sent[0]
    couple.world.run(200.0)
    couple.talk(HELLO)
    second = next(datagram for datagram in couple.client.sent[1:] if len(datagram) == 8)

    assert int.from_bytes(second[:4], "big") - int.from_bytes(first[:4], "big") == 200
    assert (first[4:].hex(), second[4:].hex()) == ("00000000", "00000003")


def test_preshared_keys_that_differ_are_told_to_the_initiator() -> None:
    couple = Couple.meet(preshared_keys=(b"a" * 32, b"b" * 32))
    couple.talk(HELLO)

    (rejected,) = couple.client.told(DatagramRejected)
    assert rejected.reason is Rejection.UNREADABLE
    assert "preshared keys differ" in rejected.hint
    assert not couple.client.told(HandshakeCompleted)


def test_equal_preshared_keys_work() -> None:
    couple = Couple.meet(preshared_keys=(b"a" * 32, b"a" * 32))
    couple.talk(HELLO)

    assert couple.server.received == [HELLO]


def test_who_does_not_answer_is_asked_for_a_while_and_no_longer() -> None:
    couple = Couple.meet()
    couple.world.loses = lambda _datagram: True
    couple.talk(HELLO)
    couple.world.run(200.0)

    assert len(couple.client.told(HandshakeSent)) == 20
    assert couple.client.told(HandshakeFailed) == [
        HandshakeFailed(couple.to_server, HandshakeFault.NO_ANSWER)
    ]
    assert not couple.to_server.staged

    couple.world.loses = lambda _datagram: False
    couple.talk(HELLO)
    assert couple.server.received == [HELLO]


def test_who_cannot_be_reached_is_told() -> None:
    couple = Couple.meet()
    couple.answer(HELLO)
    couple.world.run(0.1)

    assert couple.server.told(HandshakeFailed) == [
        HandshakeFailed(couple.to_client, HandshakeFault.NO_ENDPOINT)
    ]
    assert couple.server.sent == []


# -- under load


@pytest.mark.parametrize("parameters", [OBFUSCATED, None])
def test_under_load_an_address_must_be_proven(parameters: None) -> None:
    couple = Couple.meet(*([parameters] if parameters else []))
    couple.server.device.assume_load(couple.world.now + 30.0)
    couple.talk(HELLO)

    assert couple.server.told(CookieSent) == [CookieSent(CLIENT)]
    assert couple.client.told(CookieReceived) == [CookieReceived(couple.to_server)]
    assert not couple.server.told(HandshakeAnswered)

    couple.world.run(5.0)
    assert couple.server.received == [HELLO]
    assert len(couple.server.told(UnderLoad)) == 1


def test_a_flood_of_initiations_is_a_load_and_gets_cookies_only() -> None:
    """The sender knows our public key, and nothing else."""
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(5.0)
    initiation = initiation_of(couple)
    answered = len(couple.server.sent)
    for number in range(2 * QUEUED_UNDER_LOAD):
        couple.world.carry(("198.51.100.1", 1024 + number), SERVER, initiation)
    couple.world.run(0.5)

    answers = couple.server.sent[answered:]
    assert {len(answer) for answer in answers} == {64, 92}
    assert len(answers) >= QUEUED_UNDER_LOAD
    assert [len(answer) for answer in answers].count(92) == 1
    assert couple.server.told(UnderLoad)


def test_datagrams_without_our_public_key_are_no_load() -> None:
    couple = Couple.meet()
    for _ in range(10 * QUEUED_UNDER_LOAD):
        couple.world.carry(CLIENT, SERVER, b"\1\0\0\0" + couple.world.rng.randbytes(144))
    couple.talk(HELLO)

    assert not couple.server.told(UnderLoad)
    assert couple.server.received == [HELLO]


def test_under_load_a_proven_address_has_its_rate() -> None:
    couple = Couple.meet()
    couple.server.device.assume_load(couple.world.now + 60.0)
    couple.talk(HELLO)
    couple.world.run(5.0)
    initiation = next(datagram for datagram in reversed(couple.client.sent) if len(datagram) == 148)
    for _ in range(20):
        couple.world.carry(CLIENT, SERVER, initiation)
    couple.world.run(0.1)

    assert couple.server.device.rejections[Rejection.RATE_LIMITED] >= 15


def test_a_cookie_reply_that_answers_nothing_is_dropped() -> None:
    couple = Couple.meet()
    couple.world.carry(SERVER, CLIENT, b"\3\0\0\0" + bytes(60))
    couple.world.run(0.1)

    assert couple.client.device.rejections[Rejection.UNEXPECTED] == 1


def test_an_answer_that_comes_twice_is_dropped() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.carry(SERVER, CLIENT, couple.server.sent[0])
    couple.talk(HELLO)

    assert couple.client.device.rejections[Rejection.UNEXPECTED] == 1
    assert couple.server.received == [HELLO, HELLO]
