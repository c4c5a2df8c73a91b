"""What is the same for every protocol of the front door: carry the bytes, part in good order."""

from __future__ import annotations

import contextlib
import socket

import trio

from session_proxy.inbound.front_door import CLOSING, FrontDoor, Visit
from session_proxy.inbound.relaying import RelayEnd
from session_proxy.outbound.socket_stream import PlainSocketStream

# A client that has been told no gets this long to take note, and to stop sending; this much of what it still
# sends is thrown away. Closing at once would make the kernel reset the connection and lose the answer.
PARTING = 1.0
PARTING_BYTES = 256 * 1024


async def carry(
    door: FrontDoor, visit: Visit, near: PlainSocketStream, far: trio.abc.Stream, answer: bytes, early: bytes
) -> None:
    """Tell the client that it is connected by *answer*, and relay; close *far*, and note the outcome.

    *early* is what the client has sent already for its destination.
    """
    end = RelayEnd.RESET
    try:
        await near.send_eagerly(answer)
        if early:
            await far.send_all(early)
            visit.traffic.sent += len(early)
        end = await door.relays.relay(near, far, visit.traffic)
        visit.ended(end.value)
    except trio.BrokenResourceError:
        visit.ended(RelayEnd.RESET.value)
    finally:
        await close_far(far, clean=end is RelayEnd.FINISHED)


async def close_far(far: trio.abc.Stream, *, clean: bool) -> None:
    """Close the stream to a destination; where it does not end *clean*, the destination should see that."""
    if isinstance(far, PlainSocketStream):
        if not clean:
            far.reset_on_close()
        # No other task uses it, so nobody needs to be told, as `far.close` would.
        far.socket.close()
        return
    with trio.move_on_after(CLOSING, shield=True) as closing:
        if not clean:
            closing.cancel()
        await far.aclose()


async def part(near: PlainSocketStream, answer: bytes) -> None:
    """Send a client the last *answer*, and see to it that it arrives."""
    with trio.move_on_after(PARTING), contextlib.suppress(trio.BrokenResourceError, OSError):
        await near.send_eagerly(answer)
        near.socket.shutdown(socket.SHUT_WR)
        thrown_away = 0
        while thrown_away < PARTING_BYTES and (data := await near.receive_eagerly(65536)):
            thrown_away += len(data)
