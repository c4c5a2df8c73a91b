"""What is kept, what goes again, and what is said of it."""

from __future__ import annotations

import pytest

from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.protocol.frames import Frame, FrameType
from tunnel_relay.protocol.resumption import Incoming, Outgoing


def outgoing(*payloads: bytes) -> Outgoing:
    """Return one that has something to say."""
    made = Outgoing(session=1, most_frames=10)
    for payload in payloads:
        made.add(FrameType.DATA, 5, payload)
    return made


def payloads(frames: list[Frame]) -> list[bytes]:
    """Return what they carry."""
    return [bytes(frame.payload) for frame in frames]


def test_frames_leave_once_and_are_kept_until_they_have_arrived() -> None:
    sender = outgoing(b"a", b"bb", b"ccc")
    assert payloads(sender.take(1)) == [b"a"]
    assert payloads(sender.take(1000)) == [b"bb", b"ccc"]
    assert sender.take(1000) == []
    assert sender.kept == 6
    sender.acknowledge(2)
    assert sender.kept == 3
    sender.acknowledge(1)
    assert (sender.kept, sender.acknowledged) == (3, 2)


def test_over_a_new_connection_the_rest_goes_again_under_its_new_name() -> None:
    sender = outgoing(b"a", b"bb", b"ccc", b"dddd")
    sender.take(40)
    assert sender.unsent == 2
    sender.resume(1, 9)
    again = sender.take(1000)
    assert payloads(again) == [b"bb", b"ccc", b"dddd"]
    assert {frame.session for frame in again} == {9}
    assert [frame.number for frame in again] == [2, 3, 4]
    assert sender.kept == 9


def test_a_peer_that_contradicts_itself_is_not_believed() -> None:
    sender = outgoing(b"a", b"bb")
    with pytest.raises(RelayProtocolError, match="acknowledged 1, which was not sent"):
        sender.acknowledge(1)
    sender.take(1000)
    sender.acknowledge(2)
    with pytest.raises(RelayProtocolError, match="goes on at 1, and had 2"):
        sender.resume(1, 2)
    with pytest.raises(RelayProtocolError, match="acknowledged 3, which was not sent"):
        sender.resume(3, 2)


def test_what_arrives_is_acknowledged_in_time() -> None:
    incoming = Incoming(every_bytes=100, every_frames=3, delay=0.5)
    assert incoming.next_timer() is None
    assert incoming.arrives(1, 10, now=1.0)
    assert not incoming.due(1.4)
    assert incoming.next_timer() == 1.5
    assert incoming.due(1.5)
    assert incoming.acknowledged() == 1
    assert not incoming.due(9.0)


@pytest.mark.parametrize("lengths", [[100], [50, 50], [0, 0, 0]])
def test_much_is_acknowledged_at_once(lengths: list[int]) -> None:
    incoming = Incoming(every_bytes=100, every_frames=3, delay=0.5)
    for number, length in enumerate(lengths, 1):
        assert not incoming.due(1.0)
        assert incoming.arrives(number, length, now=1.0)
    assert incoming.due(1.0)


def test_what_comes_again_is_passed_over_and_acknowledged_again() -> None:
    incoming = Incoming(every_bytes=100, every_frames=3, delay=0.5)
    incoming.arrives(1, 0, now=0.0)
    incoming.acknowledged()
    assert not incoming.arrives(1, 0, now=1.0)
    assert incoming.due(1.5)
    with pytest.raises(RelayProtocolError, match="frame 3 came behind 1"):
        incoming.arrives(3, 0, now=1.0)
