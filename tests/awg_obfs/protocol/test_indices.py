from __future__ import annotations

from awg_obfs.protocol.indices import IndexTable
from awg_obfs.protocol.keypairs import Keypair
from awg_obfs.protocol.noise import Role
from tests.support.awg_world import Couple


def test_an_index_stands_for_a_handshake_and_then_for_its_keys() -> None:
    peer, table = Couple.meet().to_server, IndexTable()
    index = table.assign(peer, lambda n: bytes(range(1, n + 1)))

    assert index == 0x04030201 == peer.handshake_index
    assert table.handshakes == {index: peer}
    assert table.peer_of(index) is peer

    keypair = Keypair(peer, Role.INITIATOR, (bytes(32), bytes(32)), (index, 5), 0.0)
    table.promote(keypair)
    assert (table.handshakes, table.keypairs) == ({}, {index: keypair})
    assert table.peer_of(index) is peer

    table.release([keypair])
    assert table.peer_of(index) is None


def test_an_index_in_use_is_drawn_again() -> None:
    couple, table = Couple.meet(), IndexTable()
    drawn = iter([bytes(4), bytes(4), bytes(3) + b"\1"])

    assert table.assign(couple.to_server, lambda _: next(drawn)) == 0
    assert table.assign(couple.to_client, lambda _: next(drawn)) == 1 << 24


def test_a_peer_has_one_handshake() -> None:
    peer, table = Couple.meet().to_server, IndexTable()
    for number in range(5):
        table.assign(peer, lambda n, number=number: number.to_bytes(n, "little"))

    assert list(table.handshakes) == [4]
    table.release_handshake(peer)
    table.release_handshake(peer)
    assert table.handshakes == {}
