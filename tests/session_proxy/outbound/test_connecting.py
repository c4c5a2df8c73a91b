from __future__ import annotations

import contextlib
import errno
import socket

import pytest
import trio
import trio.testing

from session_proxy.errors import (
    DialError,
    DialTimeoutError,
    NotAllowedError,
    RefusedError,
    TransportDownError,
    UnreachableError,
)
from session_proxy.outbound import connecting
from session_proxy.outbound.connecting import (
    ATTEMPT_DELAY,
    MOST_ADDRESSES,
    SocketAddress,
    connect,
    connect_first,
    dial_error,
    interleave,
    most_telling,
)
from tests.support.sockets import LOOPBACK, closed_port, echo, open_server


def v4(host: str, port: int = 80) -> SocketAddress:
    return SocketAddress(socket.AF_INET, (host, port))


def v6(host: str, port: int = 80) -> SocketAddress:
    return SocketAddress(socket.AF_INET6, (host, port))


def test_families_alternate_from_the_resolvers_first() -> None:
    found = [v6("::1"), v6("::2"), v6("::3"), v4("10.0.0.1"), v4("10.0.0.2")]
    assert interleave(found) == [v6("::1"), v4("10.0.0.1"), v6("::2"), v4("10.0.0.2"), v6("::3")]
    assert interleave(found[3:]) == found[3:]
    assert interleave([]) == []
    assert len(interleave([v4(f"10.0.0.{n}") for n in range(100)])) == MOST_ADDRESSES


async def test_it_connects_without_delay_of_small_segments() -> None:
    async with open_server(echo) as port:
        with await connect(v4(LOOPBACK, port)) as sock:
            assert sock.getpeername() == (LOOPBACK, port)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.gettimeout() == 0


async def test_a_closed_port_is_refused() -> None:
    with pytest.raises(RefusedError, match="connection refused"):
        await connect(v4(LOOPBACK, closed_port()))


# Without a scope, no system can know on which link it is.
LINK_LOCAL = SocketAddress(socket.AF_INET6, ("fe80::1", 80))


async def test_an_answer_that_takes_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    really_connect = socket.socket.connect_ex
    asked: set[socket.socket] = set()

    def connect_slowly(sock: socket.socket, address: tuple[str, int]) -> int:
        if sock in asked:
            return errno.EALREADY
        asked.add(sock)
        return really_connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_slowly)
    async with open_server(echo) as port:
        with await connect(v4(LOOPBACK, port)) as sock:
            assert sock.getpeername() == (LOOPBACK, port)
    with pytest.raises(RefusedError):
        await connect(v4(LOOPBACK, closed_port()))


async def test_cancelling_an_attempt_closes_its_socket() -> None:
    """A socket left open would be a ResourceWarning, which is an error here."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        # With its queue full, the listener answers nobody.
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        with trio.move_on_after(0.05) as scope:
            await connect(v4(LOOPBACK, listener.getsockname()[1]))
    assert scope.cancelled_caught


async def test_an_address_that_cannot_be_used_is_unreachable() -> None:
    with pytest.raises(UnreachableError):
        await connect(LINK_LOCAL)


async def test_an_unknown_family_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match="no address of that kind"):
        await connect(SocketAddress(12345, (LOOPBACK, 1)))


async def test_the_second_address_is_tried_at_once_when_the_first_is_refused() -> None:
    async with open_server(echo) as port:
        with await connect_first([v4(LOOPBACK, closed_port()), v4(LOOPBACK, port)]) as sock:
            assert sock.getpeername() == (LOOPBACK, port)


async def test_of_several_failures_the_most_telling_is_reported() -> None:
    with pytest.raises(RefusedError):
        await connect_first([LINK_LOCAL, v4(LOOPBACK, closed_port()), v4(LOOPBACK, closed_port())])


async def test_a_silent_address_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """RFC 8305: the next attempt starts after a quarter of a second, and whoever answers first wins."""
    started: list[tuple[str, float]] = []
    made: list[socket.socket] = []

    async def slow_connect(address: SocketAddress) -> socket.socket:
        started.append((address.name[0], trio.current_time()))
        await trio.sleep({"10.0.0.1": 100.0, "10.0.0.2": 5.0, "10.0.0.3": 1.0}[address.name[0]])
        made.append(socket.socket())
        return made[-1]

    monkeypatch.setattr(connecting, "connect", slow_connect)
    begin = trio.current_time()

    with await connect_first([v4("10.0.0.1"), v4("10.0.0.2"), v4("10.0.0.3")]) as sock:
        assert made == [sock]

    assert [(host, at - begin) for host, at in started] == [
        ("10.0.0.1", 0.0),
        ("10.0.0.2", pytest.approx(ATTEMPT_DELAY)),
        ("10.0.0.3", pytest.approx(2 * ATTEMPT_DELAY)),
    ]
    assert trio.current_time() - begin == pytest.approx(1.5)


async def test_two_that_answer_at_once_leave_one_socket(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    made: list[socket.socket] = []

    async def connect_both(_address: SocketAddress) -> socket.socket:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        made.append(socket.socket())
        return made[-1]

    monkeypatch.setattr(connecting, "connect", connect_both)

    with await connect_first([v4("10.0.0.1"), v4("10.0.0.2")]) as winner:
        assert [sock.fileno() < 0 for sock in made] == [sock is not winner for sock in made]
        assert len(made) == 2


async def test_cancelling_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    async def connect_late(_address: SocketAddress) -> socket.socket:
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        made.append(socket.socket())
        return made[-1]

    monkeypatch.setattr(connecting, "connect", connect_late)

    with trio.CancelScope() as scope:
        scope.cancel()
        await connect_first([v4("10.0.0.1"), v4("10.0.0.2")])

    assert scope.cancelled_caught
    assert all(sock.fileno() < 0 for sock in made)


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ECONNREFUSED, RefusedError, "connection refused"),
        (errno.ECONNRESET, RefusedError, "connection refused"),
        (errno.EACCES, NotAllowedError, "firewall"),
        (errno.EPERM, NotAllowedError, "firewall"),
        (errno.ETIMEDOUT, DialTimeoutError, "no answer"),
        (errno.ENETUNREACH, UnreachableError, "no route to its network"),
        (errno.EHOSTUNREACH, UnreachableError, "no route to the host"),
        (errno.EADDRNOTAVAIL, UnreachableError, "no address of that kind"),
        (errno.EMFILE, TransportDownError, "ulimit"),
        (errno.EIO, UnreachableError, "EIO"),
        (None, UnreachableError, "unknown error"),
    ],
)
def test_every_system_error_means_something(number: int | None, kind: type[DialError], message: str) -> None:
    error = dial_error(OSError(number, "") if number else OSError())
    assert type(error) is kind
    assert message in str(error)


def test_of_failures_without_a_rank_the_first_counts() -> None:
    down = TransportDownError("down")
    assert most_telling([down, TransportDownError("also")]) is down
    assert isinstance(most_telling([down, UnreachableError("x"), DialTimeoutError("y")]), DialTimeoutError)
