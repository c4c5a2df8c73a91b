"""Conversations of two devices. That their bytes are the reference's: tests/conformance/test_awg_vectors.py."""

from __future__ import annotations

import attrs
import pytest

from awg_obfs.events import (
    DatagramRejected,
    HandshakeAnswered,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeSent,
    PeerMoved,
    Rejection,
    SessionExpired,
)
from awg_obfs.protocol.device import DeviceSettings
from awg_obfs.protocol.keypairs import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from awg_obfs.protocol.noise import NoiseError, Role
from awg_obfs.protocol.parameters import DEFAULT, Parameters
from awg_obfs.protocol.sizes import RESPONSE_LENGTH
from awg_obfs.protocol.timers import MAX_RETRIES, REKEY_TIMEOUT
from tests.support.awg_world import CLIENT, OBFUSCATED, SERVER, Couple, block

HELLO, BYE = block("hello"), block("bye")
FOR_QUIC = DeviceSettings(leading_fill=True, keepalive_padding=True)


@pytest.mark.parametrize("parameters", [DEFAULT, OBFUSCATED])
def test_what_waits_for_the_handshake_arrives_in_order(parameters: Parameters) -> None:
    couple = Couple.meet(parameters)
    couple.say(HELLO, BYE)
    couple.say(BYE)
    couple.world.run()
    couple.answer(BYE)
    couple.world.run()

    assert couple.server.received == [HELLO, BYE, BYE]
    assert couple.client.received == [BYE]
    assert not couple.server.told(DatagramRejected)


def test_contents_of_any_length_come_out_as_they_went_in() -> None:
    couple = Couple.meet(OBFUSCATED, settings=FOR_QUIC)
    contents = [b"\x40" + couple.world.rng.randbytes(length) for length in range(200)]
    couple.talk(*contents)

    assert couple.server.received == contents


def test_without_leading_fill_zeros_follow() -> None:
    couple = Couple.meet(OBFUSCATED)
    couple.talk(b"12345")

    assert couple.server.received == [b"12345" + bytes(11)]


def test_a_batch_may_hold_anything() -> None:
    """Data of two sessions, a handshake, junk and repetitions, all in one call."""
    couple = Couple.meet(OBFUSCATED)
    couple.talk(HELLO)
    world, device = couple.world, couple.server.device
    world.loses = lambda _datagram: True
    couple.say(block("old"))
    world.run(6.0)
    old = couple.client.sent[-1]
    world.loses = lambda datagram: len(datagram) != 15 + 148
    couple.client.device.rehandshake(couple.to_server, world.now)
    world.run(0.005)
    initiation = couple.client.sent[-1]
    world.loses = lambda _datagram: False
    world.run(0.5)
    couple.client.device.send(couple.to_server, [block("new")], world.now)
    (outgoing,) = couple.client.device.take_outgoing()
    before = len(couple.server.received)

    device.receive(
        [b"", old, old, initiation, *outgoing.datagrams, b"junk", memoryview(old)], CLIENT, world.now
    )
    world.run(0.1)

    assert couple.server.received[before:] == [block("old"), block("new")]
    assert device.rejections[Rejection.REPLAYED] == 2


def test_two_peers_behind_one_address_are_kept_apart_in_a_batch() -> None:
    couple = Couple.meet()
    other = couple.world.add_station(CLIENT)
    to_server = other.device.add_peer(couple.server.identity.public, endpoint=SERVER)
    to_other = couple.server.device.add_peer(other.identity.public)
    couple.talk(HELLO)
    other.device.send(to_server, [HELLO], couple.world.now)
    couple.world.run()
    couple.client.device.send(couple.to_server, [b"1" * 16, b"2" * 16], couple.world.now)
    other.device.send(to_server, [b"3" * 16], couple.world.now)
    first, second, third = (
        datagram
        for station in (couple.client, other)
        for outgoing in station.device.take_outgoing()
        for datagram in outgoing.datagrams
    )

    couple.server.device.receive([first, third, second], CLIENT, couple.world.now)

    taken = [(incoming.peer, incoming.plaintexts) for incoming in couple.server.device.take_incoming()]
    assert taken == [
        (couple.to_client, [b"1" * 16]),
        (to_other, [b"3" * 16]),
        (couple.to_client, [b"2" * 16]),
    ]


def test_what_comes_twice_or_too_late_is_taken_once() -> None:
    couple = Couple.meet()
    couple.talk(*[block(str(number)) for number in range(50)])
    data = [datagram for datagram in couple.client.sent if len(datagram) == 48]
    couple.world.rng.shuffle(data)
    for datagram in data:
        couple.world.carry(CLIENT, SERVER, datagram)
    couple.world.run()

    assert len(couple.server.received) == 50
    assert couple.server.device.rejections[Rejection.REPLAYED] == 50


def test_altered_content_is_dropped() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.loses = lambda _datagram: True
    couple.talk(BYE)
    couple.world.loses = lambda _datagram: False
    good = couple.client.sent[-1]
    for position in range(16, len(good)):
        couple.world.carry(
            CLIENT, SERVER, good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
        )
    couple.world.carry(("198.51.100.1", 1), SERVER, good[:-1])
    couple.world.run()
    assert couple.server.received == [HELLO]
    assert couple.server.device.rejections[Rejection.BAD_CONTENT] == len(good) - 15
    assert couple.to_client.endpoint == CLIENT

    couple.world.carry(CLIENT, SERVER, good)
    couple.world.run()
    assert couple.server.received == [HELLO, BYE]


# -- keys grow old


def test_the_initiator_renews_keys_when_it_sends_after_two_minutes() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(119.0)
    couple.talk(HELLO)
    assert len(couple.client.told(HandshakeSent)) == 1

    couple.world.run(1.0)
    couple.talk(HELLO)
    assert len(couple.client.told(HandshakeCompleted)) == 2
    assert len(couple.server.told(HandshakeCompleted)) == 2
    assert couple.server.received == [HELLO] * 3


def test_the_initiator_renews_keys_that_are_about_to_expire_when_it_receives() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(165.0)
    couple.answer(BYE)
    couple.world.run(0.5)

    assert couple.client.received == [BYE]
    assert len(couple.client.told(HandshakeCompleted)) == 2


def test_the_initiator_renews_keys_when_it_only_acknowledges() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    for _ in range(16):
        couple.world.run(10.0)
        couple.answer(BYE)
        couple.world.run(0.5)
    assert len(couple.client.told(HandshakeSent)) == 2

    assert len(couple.client.received) == 16


def test_the_responder_asks_for_keys_only_when_it_has_none() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(190.0)
    couple.answer(BYE)
    couple.world.run(0.5)

    assert [event.role for event in couple.server.told(HandshakeCompleted)] == [
        Role.RESPONDER,
        Role.INITIATOR,
    ]
    assert couple.client.received == [BYE]


def test_packets_on_their_way_survive_new_keys() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(10.0)
    couple.world.delay = 0.3
    couple.say(BYE)
    couple.world.collect()
    couple.world.delay = 0.01
    couple.client.device.rehandshake(couple.to_server, couple.world.now)
    couple.world.run()

    assert len(couple.client.told(HandshakeCompleted)) == 2
    assert couple.server.received == [HELLO, BYE]


def test_old_keys_are_not_used_and_in_the_end_forgotten() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.loses = lambda _datagram: True
    couple.talk(BYE)
    late = couple.client.sent[-1]
    couple.world.run(181.0)
    couple.world.carry(CLIENT, SERVER, late)
    couple.world.run(0.1)
    assert couple.server.device.rejections[Rejection.EXPIRED_SESSION] == 1

    couple.world.run(700.0)
    assert couple.client.told(SessionExpired)
    assert couple.server.told(SessionExpired)
    for station in (couple.client, couple.server):
        assert not station.device._indices.keypairs
        assert not station.device._indices.handshakes


def test_keys_are_renewed_and_dropped_for_the_number_of_packets_too() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(6.0)
    current = couple.to_server.keypairs.current
    assert current is not None
    current.counter = REKEY_AFTER_MESSAGES
    couple.talk(HELLO)
    assert len(couple.client.told(HandshakeCompleted)) == 2

    couple.world.run(6.0)
    current = couple.to_server.keypairs.current
    assert current is not None
    current.counter = REJECT_AFTER_MESSAGES - 1
    couple.talk(HELLO, BYE)
    assert len(couple.client.told(HandshakeCompleted)) == 3
    assert couple.server.received == [HELLO, HELLO, HELLO, BYE]


# -- the path changes


def test_the_server_follows_a_client_that_moves() -> None:
    couple = Couple.meet(OBFUSCATED)
    couple.talk(HELLO)
    couple.client.address = ("203.0.113.7", 1234)
    couple.answer(BYE)
    couple.world.run(0.1)
    assert couple.client.received == []

    couple.talk(HELLO)
    couple.answer(BYE)
    couple.world.run(0.1)
    assert couple.client.received == [BYE]
    assert couple.server.told(PeerMoved)[-1] == PeerMoved(couple.to_client, CLIENT, ("203.0.113.7", 1234))


def test_data_into_silence_bring_a_handshake_after_15_seconds() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(20.0)
    couple.restart_server()
    couple.talk(BYE)
    couple.world.run(14.0)
    assert len(couple.client.told(HandshakeSent)) == 1

    couple.world.run(2.0)
    assert len(couple.client.told(HandshakeCompleted)) == 2


def test_who_knows_that_the_path_is_dead_need_not_wait() -> None:
    """A server that restarted is found again at once, if that is asked for, and without data."""
    couple = Couple.meet(OBFUSCATED, settings=FOR_QUIC)
    couple.talk(HELLO)
    couple.world.run(20.0)
    couple.restart_server(couple.to_client.last_timestamp)
    couple.client.device.rehandshake(couple.to_server, couple.world.now)
    couple.world.run(0.1)

    assert len(couple.client.told(HandshakeCompleted)) == 2
    assert couple.server.told(HandshakeCompleted)


def test_rehandshakes_are_5_seconds_apart_but_not_forgotten() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.restart_server(couple.to_client.last_timestamp)
    for _ in range(3):
        couple.client.device.rehandshake(couple.to_server, couple.world.now)
        couple.world.run(1.0)
    assert len(couple.client.told(HandshakeSent)) == 1

    couple.world.run(2.0)
    assert [event.attempt for event in couple.client.told(HandshakeSent)] == [1, 1]
    assert couple.server.told(HandshakeCompleted)


def test_a_rehandshake_begins_anew_where_retries_are_used_up() -> None:
    couple = Couple.meet()
    couple.world.loses = lambda _datagram: True
    couple.say(HELLO)
    couple.world.run(MAX_RETRIES * REKEY_TIMEOUT + REKEY_TIMEOUT + 1.0)
    sent = len(couple.client.told(HandshakeSent))
    assert sent == MAX_RETRIES + 2
    couple.client.device.rehandshake(couple.to_server, couple.world.now)
    couple.world.run(REKEY_TIMEOUT)

    assert [event.attempt for event in couple.client.told(HandshakeSent)] == list(range(1, sent + 2))
    assert not couple.client.told(HandshakeFailed)


def test_a_rehandshake_waits_for_an_answer_of_ours_as_well() -> None:
    """The server has just answered, and its answer was lost."""
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(REKEY_TIMEOUT)
    couple.world.loses = lambda _datagram: True
    couple.server.device.rehandshake(couple.to_client, couple.world.now)
    couple.world.run(1.0)
    couple.server.device.rehandshake(couple.to_client, couple.world.now)
    couple.world.loses = lambda datagram: len(datagram) == RESPONSE_LENGTH
    couple.client.device.rehandshake(couple.to_server, couple.world.now)
    couple.world.run(4.5)
    assert len(couple.server.told(HandshakeAnswered)) == 2
    assert len(couple.server.told(HandshakeSent)) == 1
    # Nobody else begins one, either.
    couple.client.device.remove_peer(couple.to_server)
    couple.world.run(1.0)

    assert [event.attempt for event in couple.server.told(HandshakeSent)] == [1, 2]


def test_a_lossy_path_loses_only_what_it_loses() -> None:
    couple = Couple.meet(OBFUSCATED, settings=FOR_QUIC)
    couple.world.loses = lambda _datagram: couple.world.rng.random() < 0.2
    sent = [block(f"packet {number}") for number in range(2000)]
    for packet in sent:
        couple.say(packet)
        couple.world.run(0.5)

    received = couple.server.received
    assert len(received) == len(set(received))
    assert set(received) <= set(sent)
    assert len(received) > 0.7 * len(sent)
    assert set(couple.server.device.rejections) <= {Rejection.TOO_SMALL, Rejection.UNKNOWN_TYPE}


# -- keepalives


def test_a_persistent_keepalive_begins_and_keeps_the_path_open() -> None:
    couple = Couple.meet(persistent_keepalive=25.0)
    couple.world.run(76.0)

    keepalives = [datagram for datagram in couple.client.sent if len(datagram) == 32]
    assert len(keepalives) == 4
    assert couple.to_client.rx_bytes == 148 + 4 * 32
    assert couple.server.received == []


def test_data_are_acknowledged_by_a_keepalive() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    couple.world.run(9.0)
    sent = len(couple.server.sent)
    couple.world.run(2.0)

    assert [len(datagram) for datagram in couple.server.sent[sent:]] == [32]


@pytest.mark.parametrize("padded", [True, False])
def test_keepalives_with_s4_arrive_only_if_padded(padded: bool) -> None:
    settings = DeviceSettings(keepalive_padding=padded)
    couple = Couple.meet(OBFUSCATED, settings=settings, persistent_keepalive=5.0)
    couple.world.run(30.0)

    assert (couple.to_client.rx_bytes > 300) == padded


# -- peers


def test_peers_come_and_go() -> None:
    couple = Couple.meet()
    device = couple.server.device
    with pytest.raises(ValueError, match="two peers"):
        device.add_peer(couple.client.identity.public)
    with pytest.raises(NoiseError):
        device.add_peer(bytes(32))
    for public, preshared in ((b"short", bytes(32)), (b"x" * 32, b"short")):
        with pytest.raises(ValueError, match="32 bytes"):
            device.add_peer(public, preshared)
    couple.talk(HELLO)
    device.remove_peer(couple.to_client)
    couple.talk(HELLO)

    assert device.peers == ()
    assert couple.server.received == [HELLO]
    assert device.rejections[Rejection.UNKNOWN_SESSION] == 1
    couple.world.run(20.0)
    assert device.rejections[Rejection.UNKNOWN_PEER] >= 1
    assert device.next_timer() is None


def test_one_device_keeps_its_peers_apart() -> None:
    couple = Couple.meet(OBFUSCATED)
    other = couple.world.add_station(("192.0.2.9", 7), OBFUSCATED)
    to_server = other.device.add_peer(couple.server.identity.public, endpoint=SERVER)
    to_other = couple.server.device.add_peer(other.identity.public)
    couple.say(HELLO)
    other.device.send(to_server, [BYE], couple.world.now)
    couple.world.run()
    couple.answer(HELLO)
    couple.server.device.send(to_other, [BYE], couple.world.now)
    couple.world.run()

    assert couple.server.received == [HELLO, BYE]
    assert (couple.client.received, other.received) == ([HELLO], [BYE])


def test_parameters_can_change_under_a_session() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    for station in (couple.client, couple.server):
        station.device.reconfigure(attrs.evolve(OBFUSCATED, s4=3))
    couple.talk(BYE)

    assert couple.server.received == [HELLO, BYE]
    assert len(couple.client.sent[-1]) == 3 + 32 + 16
    assert len(couple.client.told(HandshakeCompleted)) == 1


def test_nothing_to_send_is_nothing() -> None:
    couple = Couple.meet()
    couple.talk(HELLO)
    sent = len(couple.client.sent)
    couple.talk()

    assert len(couple.client.sent) == sent
