"""Connecting and disconnecting leaves nothing: no descriptor, no thread, no task, no file."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from tests.support.programs import Lab, Sproxy
from tests.support.socks import connect, receive_exactly

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# Finished connections are seen a moment after the client has gone; pipes stay leased for a while.
SETTLING = 20.0


@attrs.frozen
class Footprint:
    """What a process holds."""

    descriptors: int
    sockets: int
    threads: int
    tasks: int

    def within(self, other: Footprint) -> bool:
        """Return whether this is no more than *other*, but for a few pipes and worker threads kept warm."""
        return (
            self.descriptors <= other.descriptors + 16
            and self.sockets <= other.sockets
            and self.threads <= other.threads + 4
            and self.tasks <= other.tasks
        )


def footprint(proxy: Sproxy) -> Footprint:
    descriptors = [_target(link) for link in Path(f"/proc/{proxy.pid}/fd").iterdir()]
    return Footprint(
        descriptors=len(descriptors),
        sockets=sum(name.startswith("socket:") for name in descriptors),
        threads=len(list(Path(f"/proc/{proxy.pid}/task").iterdir())),
        tasks=_tasks(proxy),
    )


def _target(link: Path) -> str:
    with contextlib.suppress(OSError):
        return str(link.readlink())
    return ""


def _tasks(proxy: Sproxy) -> int:
    """Return how many lines the task tree has."""
    before = len(proxy.text().splitlines())
    proxy.process.send_signal(signal.SIGUSR1)

    def dumped() -> int | None:
        lines = [line for line in proxy.text().splitlines()[before:] if not line.startswith("{")]
        return len(lines) if any("(this dump)" in line for line in lines) else None

    return proxy.wait_for(dumped)


def say_goodbye(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


def just_close(connection: socket.socket) -> None:
    connection.sendall(b"more that nobody reads")


Leave = Callable[[socket.socket], None]
WAYS_TO_LEAVE: dict[str, list[Leave]] = {
    "direct": [say_goodbye, reset, just_close],
    "ssh": [say_goodbye, reset, just_close],
    "ssm": [say_goodbye, reset, just_close],
    # There is no half-close: a destination that cannot be told that its client has left is given some seconds.
    "ssm-port": [reset],
}


def come_and_go(proxy: Sproxy, target: str, ways: list[Leave], count: int) -> None:
    for number in range(count):
        with connect(proxy.address, target) as connection:
            connection.sendall(b"hello")
            assert receive_exactly(connection, 5) == b"hello"
            ways[number % len(ways)](connection)


def check(lab: Lab, proxy: Sproxy, transport: str, count: int) -> None:
    target, ways = lab.target(transport).echo, WAYS_TO_LEAVE[transport]
    come_and_go(proxy, target, ways, 10)
    before = settled(proxy)
    files = set(proxy.profile.parent.rglob("*"))

    come_and_go(proxy, target, ways, count)

    after = settled(proxy, before)
    assert after.within(before), f"{before} became {after}"
    assert set(proxy.profile.parent.rglob("*")) == files


def settled(proxy: Sproxy, goal: Footprint | None = None) -> Footprint:
    """Return the footprint when it is within *goal*, or has not changed between two looks."""
    deadline = time.monotonic() + SETTLING
    last = footprint(proxy)
    while time.monotonic() < deadline:
        now = footprint(proxy)
        if now.within(goal) if goal else now == last:
            return now
        last = now
    return last


@pytest.mark.parametrize("transport", ["direct", "ssh", "ssm"])
def test_a_few_connections_leave_nothing(lab: Lab, proxy: Sproxy, transport: str) -> None:
    check(lab, proxy, transport, 30)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["direct", "ssh", "ssm"])
def test_five_hundred_connections_leave_nothing(lab: Lab, proxy: Sproxy, transport: str) -> None:
    check(lab, proxy, transport, 500)


@pytest.mark.slow
def test_forwarded_ports_leave_nothing(lab: Lab, proxy: Sproxy) -> None:
    """Each of these takes the time in which the agent would report a refusal."""
    check(lab, proxy, "ssm-port", 100)
