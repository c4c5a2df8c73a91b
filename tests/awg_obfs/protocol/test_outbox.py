from __future__ import annotations

import pytest

from awg_obfs.events import CookieSent, DatagramRejected, Rejection
from awg_obfs.protocol.outbox import EXPLAINED_PER_SECOND, MAX_EVENTS, TOLD_PER_SECOND, Outbox
from tests.support.awg_world import CLIENT, SERVER, Couple


def test_what_is_sent_is_counted_for_its_peer_too() -> None:
    outbox, peer = Outbox(), Couple.meet().to_server
    outbox.send_to_peer(peer, [b"12345", b"123"])
    outbox.send(CLIENT, [b"1"])

    assert [(outgoing.address, outgoing.datagrams) for outgoing in outbox.outgoing] == [
        (SERVER, [b"12345", b"123"]),
        (CLIENT, [b"1"]),
    ]
    assert (peer.tx_bytes, outbox.datagrams_sent) == (8, 3)


def test_to_a_peer_that_nobody_knows_the_address_of_nothing_is_sent() -> None:
    outbox, peer = Outbox(), Couple.meet().to_client
    outbox.send_to_peer(peer, [b"12345"])

    assert outbox.outgoing == []
    assert peer.tx_bytes == 0


def test_rejections_are_all_counted_but_only_some_are_told() -> None:
    outbox = Outbox()
    for _ in range(100):
        outbox.reject(Rejection.BAD_MAC1, CLIENT, b"12345", 10.0, "hint")

    assert outbox.rejections[Rejection.BAD_MAC1] == 100
    assert (
        list(outbox.events)
        == [
            DatagramRejected(CLIENT, 5, Rejection.BAD_MAC1, "hint"),
        ]
        * TOLD_PER_SECOND
    )
    outbox.tell_rarely(CookieSent(CLIENT), 10.9)
    assert len(outbox.events) == TOLD_PER_SECOND
    outbox.tell_rarely(CookieSent(CLIENT), 11.0)
    assert len(outbox.events) == TOLD_PER_SECOND + 1


@pytest.mark.parametrize("reason", [Rejection.TOO_SMALL, Rejection.UNKNOWN_TYPE])
def test_what_junk_ends_as_is_not_told_without_a_hint(reason: Rejection) -> None:
    outbox = Outbox()
    outbox.reject(reason, CLIENT, b"12345", 10.0, lambda _datagram: "")
    outbox.reject(reason, CLIENT, b"12345", 10.0, lambda _datagram: "s1")

    assert list(outbox.events) == [DatagramRejected(CLIENT, 5, reason, "s1")]


def test_only_some_are_looked_into() -> None:
    outbox, looked = Outbox(), list[int]()

    def hint(datagram: bytes | bytearray | memoryview) -> str:
        looked.append(len(datagram))
        return ""

    for _ in range(1000):
        outbox.reject(Rejection.UNKNOWN_TYPE, CLIENT, b"12345", 10.0, hint)
    assert len(looked) == EXPLAINED_PER_SECOND


def test_events_that_nobody_takes_are_bounded() -> None:
    outbox = Outbox()
    for second in range(1000):
        for _ in range(TOLD_PER_SECOND):
            outbox.tell_rarely(CookieSent(CLIENT), float(second))

    assert len(outbox.events) == MAX_EVENTS


def test_contents_are_not_shown() -> None:
    outbox = Outbox()
    outbox.send(CLIENT, [b"secret"])

    assert "secret" not in repr(outbox)
