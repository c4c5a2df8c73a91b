from __future__ import annotations

from awg_obfs.protocol.keypairs import REJECT_AFTER_MESSAGES, Keypair, Keypairs
from awg_obfs.protocol.noise import Role
from awg_obfs.protocol.peers import Peer
from tests.support.awg_world import Couple


def some_peer() -> Peer:
    return Couple.meet().to_server


def keypair(peer: Peer, role: Role, index: int, now: float = 0.0) -> Keypair:
    return Keypair(peer, role, (b"s" * 32, b"r" * 32), (index, 100 + index), now)


def test_the_initiator_uses_new_keys_at_once_and_keeps_the_old_for_what_is_on_its_way() -> None:
    peer, keypairs = some_peer(), Keypairs()
    first, second, third = (keypair(peer, Role.INITIATOR, index) for index in range(3))

    assert keypairs.add(first) == []
    assert keypairs.add(second) == []
    assert keypairs.add(third) == [first]
    assert (keypairs.previous, keypairs.current, keypairs.next) == (second, third, None)


def test_the_responder_waits_for_the_initiator_to_use_new_keys() -> None:
    peer, keypairs = some_peer(), Keypairs()
    first, second, third = (keypair(peer, Role.RESPONDER, index) for index in range(3))

    assert keypairs.add(first) == []
    assert keypairs.current is None
    assert keypairs.confirm() == []
    assert keypairs.current is first
    assert keypairs.add(second) == []
    assert keypairs.add(third) == [second]
    assert (keypairs.previous, keypairs.current, keypairs.next) == (None, first, third)
    assert keypairs.confirm() == []
    assert (keypairs.previous, keypairs.current, keypairs.next) == (first, third, None)


def test_who_becomes_initiator_drops_what_was_not_confirmed_last() -> None:
    peer, keypairs = some_peer(), Keypairs()
    first, second = keypair(peer, Role.RESPONDER, 1), keypair(peer, Role.RESPONDER, 2)
    keypairs.add(first)
    keypairs.confirm()
    keypairs.add(second)
    third = keypair(peer, Role.INITIATOR, 3)

    assert keypairs.add(third) == [first]
    assert (keypairs.previous, keypairs.current, keypairs.next) == (second, third, None)
    assert keypairs.clear() == [second, third]
    assert keypairs.current is None


def test_keys_have_an_end_in_time_and_in_number() -> None:
    keys = keypair(some_peer(), Role.RESPONDER, 1, now=50.0)

    assert keys.can_send(10, 229.9)
    assert not keys.can_send(1, 230.0)
    keys.counter = REJECT_AFTER_MESSAGES - 1
    assert keys.can_send(1, 60.0)
    assert not keys.can_send(2, 60.0)


def test_only_the_initiator_refreshes_keys() -> None:
    peer = some_peer()

    assert keypair(peer, Role.INITIATOR, 1).refresh_at == 120.0
    assert keypair(peer, Role.INITIATOR, 1).refresh_receiving_at == 165.0
    assert keypair(peer, Role.RESPONDER, 1).refresh_at == float("inf")


def test_keys_are_not_shown() -> None:
    assert repr(keypair(some_peer(), Role.INITIATOR, 1)) == "Keypair(initiator, 0 sent)"
