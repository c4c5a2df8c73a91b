from __future__ import annotations

import errno
import random
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awg_obfs.addresses import ANY_IPV4, ANY_IPV6
from awg_obfs.errors import BindError
from awg_obfs.protocol.address import Address
from awg_obfs.udp import BATCH, MAX_PAYLOAD, MAX_SEGMENTS, UdpSocket

V4: Address = ("127.0.0.1", 0)
V6: Address = ("::1", 0)
KINDS = [True, False]

Open = Callable[..., UdpSocket]


@pytest.fixture
async def open_udp() -> AsyncGenerator[Open]:
    """Opens sockets that are closed behind the test."""
    sockets: list[UdpSocket] = []

    def open_it(address: Address = V4, **options: Any) -> UdpSocket:  # noqa: ANN401
        sock = UdpSocket(address, **options)
        sockets.append(sock)
        return sock

    yield open_it
    for sock in sockets:
        sock.close()


async def receive(sock: UdpSocket, count: int) -> list[tuple[Address, bytes]]:
    """Return the first *count* datagrams, which must come, each with its sender."""
    received: list[tuple[Address, bytes]] = []
    with trio.fail_after(5):
        while len(received) < count:
            await sock.wait_readable()
            for source, datagrams in sock.receive_batch():
                received += [(source, bytes(datagram)) for datagram in datagrams]
    return received


def datagrams_of(sizes: Sequence[int]) -> list[bytes]:
    rng = random.Random(1)
    return [rng.randbytes(size) for size in sizes]


SIZES = {
    "equal": [1350] * 30,
    "equal, the last shorter": [1350] * 30 + [77],
    "equal, the last longer": [100] * 5 + [1350],
    "all different": [5, 4, 9, 1, 30],
    "several runs": [10, 10, 3, 10, 10, 10, 20, 20, 1, 1, 1],
    "empty ones between": [10, 10, 0, 10, 0, 0, 10],
    "more than are cut at once": [200] * (3 * MAX_SEGMENTS + 5),
    "more than fits one buffer": [9000] * 20,
    "the largest": [MAX_PAYLOAD, MAX_PAYLOAD, 5],
    "one": [1],
    "none": [],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("sends_offloaded", KINDS)
@pytest.mark.parametrize("receives_offloaded", KINDS)
@pytest.mark.parametrize("address", [V4, V6], ids=["IPv4", "IPv6"])
async def test_datagrams_arrive_as_they_were(
    open_udp: Open,
    address: Address,
    sizes: list[int],
    sends_offloaded: bool,
    receives_offloaded: bool,
) -> None:
    sender = open_udp(address, offload=sends_offloaded)
    receiver = open_udp(address, offload=receives_offloaded)
    datagrams = datagrams_of(sizes)
    assert sender.send(receiver.address, datagrams) == len(sizes)
    assert await receive(receiver, len(sizes)) == [(sender.address, datagram) for datagram in datagrams]
    sent, received = sender.traffic, receiver.traffic
    assert sent.datagrams_sent == received.datagrams_received == len(sizes)
    assert sent.bytes_sent == received.bytes_received == sum(sizes)
    assert not sent.dropped


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 90)), max_size=6),
    st.booleans(),
)
def test_any_runs_arrive_as_they_were(runs: list[tuple[int, int]], offload: bool) -> None:
    datagrams = datagrams_of([size for size, count in runs for _ in range(count)])

    async def main() -> None:
        with closing(UdpSocket(V4, offload=offload)) as sender, closing(UdpSocket(V4)) as receiver:
            assert sender.send(receiver.address, datagrams) == len(datagrams)
            received = await receive(receiver, len(datagrams))
            assert [datagram for _, datagram in received] == datagrams

    trio.run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has segmentation and coalescing")
async def test_equal_datagrams_take_one_call_each_way(open_udp: Open) -> None:
    sender, receiver = open_udp(), open_udp()
    if not (sender.segments and receiver.coalesces):
        pytest.skip("this kernel has neither")
    sender.send(receiver.address, datagrams_of([1350] * 40))
    await receive(receiver, 40)
    assert sender.traffic.send_calls == 1
    assert receiver.traffic.receive_calls == 1


async def test_coalesced_datagrams_are_views_of_one_buffer(open_udp: Open) -> None:
    sender, receiver = open_udp(), open_udp()
    if not (sender.segments and receiver.coalesces):
        pytest.skip("this kernel has neither")
    sender.send(receiver.address, datagrams_of([100, 100]))
    await receiver.wait_readable()
    [(_, [first, second])] = receiver.receive_batch()
    assert isinstance(first, memoryview)
    assert isinstance(second, memoryview)
    assert first.obj is second.obj


async def test_without_offload_nothing_is_used(open_udp: Open) -> None:
    sock = open_udp(offload=False)
    assert not sock.segments
    assert not sock.coalesces


async def test_a_batch_is_bounded(open_udp: Open) -> None:
    sender, receiver = open_udp(offload=False), open_udp(offload=False)
    for number in range(3 * BATCH):
        sender.send(receiver.address, [b"%d" % number])
    await receiver.wait_readable()
    assert sum(len(datagrams) for _, datagrams in receiver.receive_batch()) == BATCH


async def test_senders_are_told_apart(open_udp: Open) -> None:
    receiver, first, second = open_udp(), open_udp(), open_udp()
    for sock, text in ((first, b"1"), (first, b"22"), (second, b"3"), (first, b"4")):
        sock.send(receiver.address, [text])
    await receiver.wait_readable()
    assert receiver.receive_batch() == [
        (first.address, [b"1", b"22"]),
        (second.address, [b"3"]),
        (first.address, [b"4"]),
    ]


async def test_a_socket_for_all_addresses_speaks_both_families(open_udp: Open) -> None:
    both = open_udp(ANY_IPV6)
    for address in (V4, V6):
        other = open_udp(address)
        other.send((address[0], both.address[1]), datagrams_of([50, 50, 20]))
        received = await receive(both, 3)
        assert received == [(other.address, datagram) for datagram in datagrams_of([50, 50, 20])]
        both.send(other.address, datagrams_of([60, 60, 60]))
        assert [datagram for _, datagram in await receive(other, 3)] == datagrams_of([60, 60, 60])


# -- what the network does


class Interfering:
    """A socket whose system calls fail as told."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.single: list[int] = []
        """Errors of the next `sendto` calls; 0 lets one pass."""
        self.run: list[int] = []
        self.receive: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.sock, name)

    def fileno(self) -> int:
        return self.sock.fileno()

    def sendto(self, *args: Any) -> int:  # noqa: ANN401
        self._fail(self.single)
        return self.sock.sendto(*args)

    def sendmsg(self, *args: Any) -> int:  # noqa: ANN401
        self._fail(self.run)
        return self.sock.sendmsg(*args)

    def recvmsg(self, *args: Any) -> object:  # noqa: ANN401
        self._fail(self.receive)
        return self.sock.recvmsg(*args)

    def recvfrom(self, *args: Any) -> object:  # noqa: ANN401
        self._fail(self.receive)
        return self.sock.recvfrom(*args)

    @staticmethod
    def _fail(errors: list[int]) -> None:
        number = errors.pop(0) if errors else 0
        if number == errno.EAGAIN:
            raise BlockingIOError(number, "no room")
        if number:
            raise OSError(number, "as told")


def interfere(sock: UdpSocket) -> Interfering:
    interfering = Interfering(sock._socket)
    sock._socket = interfering  # type: ignore[assignment]
    return interfering


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOBUFS, errno.EIO])
async def test_a_refused_datagram_is_dropped_and_the_others_are_sent(open_udp: Open, error: int) -> None:
    faults: list[tuple[Address, int | None]] = []

    def on_fault(address: Address, exc: OSError) -> None:
        faults.append((address, exc.errno))

    sender = open_udp(offload=False, on_fault=on_fault)
    receiver = open_udp()
    interfere(sender).single = [0, error]
    assert sender.send(receiver.address, [b"1", b"2", b"3"]) == 3
    assert [datagram for _, datagram in await receive(receiver, 2)] == [b"1", b"3"]
    assert sender.traffic.dropped == {errno.errorcode[error]: 1}
    assert faults == [(receiver.address, error)]


@pytest.mark.parametrize(
    "error", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN]
)
@pytest.mark.parametrize("offload", KINDS)
async def test_where_no_way_leads_a_batch_is_dropped_at_once(
    open_udp: Open, error: int, offload: bool
) -> None:
    sender, receiver = open_udp(offload=offload), open_udp()
    interfering = interfere(sender)
    interfering.run, interfering.single = [error], [error]
    assert sender.send(receiver.address, [b"1"] * 10) == 10
    assert sender.traffic.dropped == {errno.errorcode[error]: 10}
    # The interface is back.
    assert sender.send(receiver.address, [b"1"] * 10) == 10
    assert len(await receive(receiver, 10)) == 10


async def test_the_answer_to_an_earlier_datagram_does_not_cost_this_one(open_udp: Open) -> None:
    sender, receiver = open_udp(), open_udp()
    interfere(sender).single = [errno.ECONNREFUSED]
    sender.send(receiver.address, [b"1"])
    assert await receive(receiver, 1) == [(sender.address, b"1")]
    assert not sender.traffic.dropped


@pytest.mark.parametrize("offload", KINDS)
async def test_what_there_is_no_room_for_is_left_to_the_caller(open_udp: Open, offload: bool) -> None:
    sender, receiver = open_udp(offload=offload), open_udp()
    interfering = interfere(sender)
    interfering.run, interfering.single = [0, errno.EAGAIN], [0, 0, errno.EAGAIN]
    datagrams = [b"11", b"22", b"333", b"333"]
    assert sender.send(receiver.address, datagrams) == 2
    assert sender.send(receiver.address, datagrams[2:]) == 2
    assert [datagram for _, datagram in await receive(receiver, 4)] == datagrams


async def test_an_interface_that_cannot_segment_gets_single_datagrams(open_udp: Open) -> None:
    sender, receiver = open_udp(), open_udp()
    if not sender.segments:
        pytest.skip("this kernel has no segmentation")
    interfere(sender).run = [errno.EIO]
    datagrams = datagrams_of([100] * 5)
    assert sender.send(receiver.address, datagrams) == 5
    assert not sender.segments
    assert [datagram for _, datagram in await receive(receiver, 5)] == datagrams


async def test_one_address_that_refuses_runs_does_not_spoil_it_for_others(open_udp: Open) -> None:
    sender, receiver = open_udp(), open_udp()
    if not sender.segments:
        pytest.skip("this kernel has no segmentation")
    interfere(sender).run = [errno.EINVAL]
    datagrams = datagrams_of([100] * 5)
    assert sender.send(receiver.address, datagrams) == 5
    assert sender.segments
    assert len(await receive(receiver, 5)) == 5


@pytest.mark.parametrize("offload", KINDS)
async def test_a_datagram_that_does_not_fit_the_path_goes_in_fragments(open_udp: Open, offload: bool) -> None:
    told: list[tuple[Address, int]] = []

    def on_narrow(address: Address, size: int) -> None:
        told.append((address, size))

    sender = open_udp(offload=offload, on_narrow=on_narrow)
    receiver = open_udp()
    interfering = interfere(sender)
    interfering.run, interfering.single = [errno.EMSGSIZE], [errno.EMSGSIZE]
    datagrams = datagrams_of([1400] * 5 + [1200] * 5)
    assert sender.send(receiver.address, datagrams) == 10
    assert sender.fragments
    assert told == [(receiver.address, 1400)]
    assert [datagram for _, datagram in await receive(receiver, 10)] == datagrams
    assert not sender.traffic.dropped


async def test_more_than_a_datagram_can_be_is_dropped(open_udp: Open) -> None:
    sender, receiver = open_udp(), open_udp()
    assert sender.send(receiver.address, [b"1", bytes(MAX_PAYLOAD + 1), b"2"]) == 3
    assert [datagram for _, datagram in await receive(receiver, 2)] == [b"1", b"2"]
    assert sender.traffic.dropped == {"EMSGSIZE": 1}
    assert not sender.fragments


async def test_another_family_is_dropped(open_udp: Open) -> None:
    sender = open_udp()
    assert sender.send(("::1", 9), [b"1", b"2"]) == 2
    assert sender.traffic.dropped == {"EAFNOSUPPORT": 2}


async def test_an_impossible_address_is_dropped(open_udp: Open) -> None:
    sender = open_udp()
    assert sender.send(("127.0.0.1", 0), [b"1", b"2"]) == 2
    assert sender.traffic.dropped == {"EINVAL": 2}


@pytest.mark.parametrize("offload", KINDS)
async def test_a_closed_port_at_the_other_end_ends_nothing(open_udp: Open, offload: bool) -> None:
    """An ICMP error comes for each datagram."""
    sender, receiver, gone = open_udp(offload=offload), open_udp(), open_udp()
    gone.close()
    for _ in range(20):
        assert sender.send(gone.address, [b"1", b"1", b"2"]) == 3
        assert sender.receive_batch() == []
    sender.send(receiver.address, [b"still here"])
    assert await receive(receiver, 1) == [(sender.address, b"still here")]


@pytest.mark.parametrize("offload", KINDS)
async def test_errors_while_receiving_end_nothing(open_udp: Open, offload: bool) -> None:
    sender, receiver = open_udp(), open_udp(offload=offload)
    interfere(receiver).receive = [errno.ECONNREFUSED, errno.ENETDOWN, 0]
    sender.send(receiver.address, [b"1"])
    assert await receive(receiver, 1) == [(sender.address, b"1")]
    assert receiver.traffic.receive_faults == {"ECONNREFUSED": 1, "ENETDOWN": 1}


async def test_a_socket_with_nothing_but_errors_has_an_end_to_its_batch(open_udp: Open) -> None:
    receiver = open_udp()
    interfere(receiver).receive = [errno.ENETDOWN] * 1000
    assert receiver.receive_batch() == []
    assert receiver.traffic.receive_faults == {"ENETDOWN": BATCH}


# -- opening and closing


@pytest.mark.parametrize("offload", KINDS)
@pytest.mark.parametrize("bound", [ANY_IPV4, ANY_IPV6])
async def test_a_server_answers_from_the_address_that_was_written_to(
    open_udp: Open, bound: Address, offload: bool
) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has all of 127.0.0.0/8")
    server = open_udp(bound, server=True, offload=offload)
    client = open_udp(offload=offload)
    for host in ("127.0.0.2", "127.0.0.3"):
        client.send((host, server.address[1]), [b"question"] * 3)
        assert await receive(server, 3) == [(client.address, b"question")] * 3
        for answers in ([b"one"], [b"a", b"run"], [b"11", b"22", b"33"]):
            server.send(client.address, answers)
            assert await receive(client, len(answers)) == [
                ((host, server.address[1]), answer) for answer in answers
            ]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENETUNREACH, errno.EADDRNOTAVAIL])
async def test_an_address_that_has_gone_answers_no_more(open_udp: Open, error: int) -> None:
    server, client = open_udp(ANY_IPV4, server=True), open_udp()
    client.send(("127.0.0.2", server.address[1]), [b"question"])
    await receive(server, 1)
    interfere(server).run = [error] * 2
    server.send(client.address, [b"1", b"2", b"3"])
    assert await receive(client, 3) == [
        (("127.0.0.1", server.address[1]), datagram) for datagram in (b"1", b"2", b"3")
    ]
    assert not server.traffic.dropped


async def test_a_taken_port_is_refused_with_a_hint(open_udp: Open) -> None:
    taken = open_udp()
    with pytest.raises(
        BindError, match=r"cannot use UDP at 127\.0\.0\.1:\d+: something else uses this port"
    ) as told:
        UdpSocket(taken.address)
    assert told.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("address", [("192.0.2.99", 0), ("fe80::1%no-such-interface", 0)])
def test_an_address_of_others_is_refused_with_a_hint(address: Address) -> None:
    with pytest.raises(BindError, match="this machine has no such address"):
        UdpSocket(address)


async def test_the_kernel_is_asked_for_large_buffers(open_udp: Open) -> None:
    received, sent = open_udp().buffer_sizes
    small_received, small_sent = open_udp(buffer_size=1 << 16).buffer_sizes
    assert received > small_received
    assert sent > small_sent


async def test_closing_wakes_those_who_wait(open_udp: Open) -> None:
    sock = open_udp()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await sock.wait_readable()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        sock.close()
    sock.close()
    assert sock.closed
    with pytest.raises(trio.ClosedResourceError):
        await sock.wait_readable()
    with pytest.raises(trio.ClosedResourceError):
        await sock.wait_writable()
    assert sock.receive_batch() == []
    assert sock.send(("127.0.0.1", 9), [b"1"]) == 1
    assert sock.traffic.dropped == {"EBADF": 1}


async def test_what_strangers_can_have_remembered_is_bounded(
    open_udp: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awg_obfs.udp.MAX_KNOWN", 2)
    both = open_udp(ANY_IPV6)
    for _ in range(5):
        other = open_udp(V6)
        other.send(("::1", both.address[1]), [b"1"])
        assert await receive(both, 1) == [(other.address, b"1")]
        both.send(other.address, [b"2"])
        assert len(await receive(other, 1)) == 1
    assert len(both._known) <= 2
    assert len(both._seen) <= 2
