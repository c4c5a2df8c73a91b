from __future__ import annotations

import errno
import socket
from collections.abc import Generator

import pytest
import trio
from trio.testing import MockClock

from awg_obfs import connecting
from awg_obfs.connecting import ATTEMPT_DELAY, MOST_ADDRESSES, connect, connect_first, dial_error, interleave
from awg_obfs.errors import DialFault, TunnelDialError
from awg_obfs.protocol.address import Address


@pytest.fixture
def listener() -> Generator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def closed(listener: socket.socket) -> Address:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()


async def test_connect_returns_a_socket_that_does_not_block(listener: socket.socket) -> None:
    with await connect(listener.getsockname()) as sock:
        assert not sock.getblocking()
        assert sock.getpeername() == listener.getsockname()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_who_refuses_is_told_from_who_is_away(closed: Address) -> None:
    with pytest.raises(TunnelDialError) as caught:
        await connect(closed)
    assert caught.value.fault is DialFault.REFUSED


async def test_the_first_that_answers_is_taken(listener: socket.socket, closed: Address) -> None:
    with await connect_first([closed, listener.getsockname(), closed]) as sock:
        assert sock.getpeername() == listener.getsockname()


async def test_of_several_failures_the_most_telling_is_told(
    closed: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(address: Address) -> socket.socket:
        await trio.lowlevel.checkpoint()
        raise dial_error(OSError(errno.ECONNREFUSED if address == closed else errno.ENETUNREACH, ""))

    monkeypatch.setattr(connecting, "connect", fail)
    with pytest.raises(TunnelDialError) as caught:
        await connect_first([("192.0.2.1", 1), closed, ("192.0.2.2", 1)])
    assert caught.value.fault is DialFault.REFUSED


async def test_cancelling_leaves_no_socket_behind(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leaked socket would be a ResourceWarning, which is an error here."""

    def in_progress(_sock: socket.socket, _address: Address) -> int:
        return errno.EINPROGRESS

    under_way: list[socket.socket] = []

    async def never(sock: socket.socket) -> None:
        under_way.append(sock)
        await trio.sleep_forever()

    monkeypatch.setattr(trio.lowlevel, "wait_writable", never)
    monkeypatch.setattr(socket.socket, "connect_ex", in_progress)
    with trio.move_on_after(2 * ATTEMPT_DELAY) as scope:
        await connect_first([("192.0.2.1", 1), ("192.0.2.2", 1)])
    assert scope.cancelled_caught
    assert [sock.fileno() for sock in under_way] == [-1, -1]


def test_families_alternate_and_are_not_too_many() -> None:
    v4: list[Address] = [(f"192.0.2.{n}", 1) for n in range(20)]
    v6: list[Address] = [("2001:db8::1", 1), ("2001:db8::2", 1)]

    assert interleave([]) == []
    assert interleave([*v6, *v4])[:6] == [v6[0], v4[0], v6[1], v4[1], v4[2], v4[3]]
    assert len(interleave([*v6, *v4])) == MOST_ADDRESSES


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ECONNREFUSED, DialFault.REFUSED),
        (errno.EACCES, DialFault.NOT_ALLOWED),
        (errno.ETIMEDOUT, DialFault.TIMEOUT),
        (errno.ENETUNREACH, DialFault.UNREACHABLE),
        (errno.EHOSTUNREACH, DialFault.UNREACHABLE),
        (errno.EADDRNOTAVAIL, DialFault.UNREACHABLE),
        (errno.EMFILE, DialFault.DOWN),
        (errno.EINVAL, DialFault.UNREACHABLE),
    ],
)
def test_the_systems_errors_have_their_meaning(number: int, fault: DialFault) -> None:
    error = dial_error(OSError(number, ""))

    assert error.fault is fault
    assert "\n" not in str(error)
