from __future__ import annotations

from awg_obfs.named_datagrams import (
    FAILURE_LIFE,
    MOST_BYTES,
    MOST_NAMES,
    MOST_OF_NAME,
    MOST_WAITING,
    NAME_LIFE,
    Name,
    NamedDatagrams,
)
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.datagram_wire import Datagram

NAME: Name = ("ntp.example", 123)
ADDRESS: Address = ("192.0.2.1", 123)


def datagram(name: Name = NAME, payload: bytes = b"") -> Datagram:
    return Datagram(*name, payload)


def test_an_answer_counts_for_a_while() -> None:
    names = NamedDatagrams()
    assert names.answer(NAME, 0.0) is None
    assert names.learn(NAME, ADDRESS, 1.0) == []
    known = names.answer(NAME, NAME_LIFE)
    assert known is not None
    assert known.address == ADDRESS
    assert names.answer(NAME, NAME_LIFE + 1.1) is None


def test_a_failure_counts_for_a_short_while() -> None:
    names = NamedDatagrams()
    names.learn(NAME, None, 1.0)
    known = names.answer(NAME, FAILURE_LIFE)
    assert known is not None
    assert known.address is None
    assert names.answer(NAME, FAILURE_LIFE + 1.1) is None


def test_what_waits_comes_out_with_the_answer() -> None:
    names = NamedDatagrams()
    assert not names.is_waited_for(NAME)
    waiting = [datagram(payload=b"1"), datagram(payload=b"2")]
    assert all(map(names.let_wait, waiting))
    assert names.is_waited_for(NAME)
    assert names.learn(NAME, ADDRESS, 0.0) == waiting
    assert not names.is_waited_for(NAME)
    assert names.learn(NAME, ADDRESS, 0.0) == []


def test_each_name_keeps_room_for_others() -> None:
    names = NamedDatagrams()
    assert [names.let_wait(datagram()) for _ in range(MOST_OF_NAME + 1)] == [True] * MOST_OF_NAME + [False]
    assert names.let_wait(datagram(("other.example", 1)))
    names.learn(NAME, None, 0.0)
    assert names.let_wait(datagram())


def test_so_many_datagrams_wait() -> None:
    names = NamedDatagrams()
    kept = [names.let_wait(datagram((f"{number}.example", 1))) for number in range(MOST_WAITING + 1)]
    assert kept == [True] * MOST_WAITING + [False]
    # Who found no room is not waited for.
    assert not names.is_waited_for((f"{MOST_WAITING}.example", 1))
    names.learn(("0.example", 1), ADDRESS, 0.0)
    assert names.let_wait(datagram())


def test_so_many_bytes_wait() -> None:
    names, most = NamedDatagrams(), MOST_BYTES // 4
    for number in range(4):
        assert names.let_wait(datagram((f"{number}.example", 1), bytes(most)))
    assert not names.let_wait(datagram(payload=b"1"))
    names.learn(("0.example", 1), ADDRESS, 0.0)
    assert names.let_wait(datagram(payload=b"1"))


def test_so_many_names_are_remembered_and_the_oldest_go() -> None:
    names = NamedDatagrams()
    for number in range(MOST_NAMES):
        names.learn((f"{number}.example", 1), ADDRESS, 0.0)
    names.learn(("0.example", 1), ADDRESS, 1.0)
    names.learn(NAME, ADDRESS, 2.0)
    assert names.answer(("0.example", 1), 2.0)
    assert names.answer(("1.example", 1), 2.0) is None
    assert names.answer(NAME, 2.0)
