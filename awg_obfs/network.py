"""Notice that this machine has moved to another network, or has slept.

A client that moves is heard from its new address only once it sends something, and until then everything is sent to
the old one. So somebody has to look, also while there is nothing to send.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import trio

from awg_obfs.addresses import family_of, from_socket, to_socket
from awg_obfs.events import NetworkChange
from awg_obfs.protocol.address import Address

# A look is four system calls, of which none sends anything. All must be over within 3 s of a move.
INTERVAL = 1.0

# Clocks that go differently for other reasons do so by less, from one look to the next.
SHORTEST_SLEEP = 2.0


def time_with_sleep() -> float:
    """Return a time that goes on while the machine sleeps, unlike `trio.current_time`."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time()


def local_address(towards: Address) -> str | None:
    """Return the address of ours that datagrams to *towards* come from; None where no way leads there."""
    family = family_of(towards)
    target = to_socket(towards, family)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            if target is None:
                return None
            # For UDP this only looks up a route.
            sock.connect(target)
            return from_socket(sock.getsockname())[0]
    except OSError:
        return None


async def watch_network(
    towards: Callable[[], Address | None],
    changed: Callable[[NetworkChange], None],
    *,
    find_local: Callable[[Address], str | None] = local_address,
    clock: Callable[[], float] = time_with_sleep,
) -> None:
    """Call *changed* whenever datagrams to *towards* take another way, and when the machine has slept; for ever."""
    target = towards()
    local = None if target is None else find_local(target)
    # What it was when there was last one.
    known = local
    asleep = clock() - trio.current_time()
    while True:
        await trio.sleep(INTERVAL)
        before, slept = local, clock() - trio.current_time() - asleep
        asleep += slept
        last_target, target = target, towards()
        local = None if target is None else find_local(target)
        if target != last_target:
            # Somebody else has seen to that.
            known = local
        elif slept >= SHORTEST_SLEEP:
            changed(NetworkChange.WOKE)
        elif local is not None and known is not None and local != known:
            changed(NetworkChange.MOVED)
        elif local is not None and before is None:
            changed(NetworkChange.RETURNED)
        known = local or known
