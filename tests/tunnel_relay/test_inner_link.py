"""Frames within a process."""

from __future__ import annotations

import attrs
import trio
import trio.testing
from trio.testing import MockClock

from tunnel_relay.background import open_background
from tunnel_relay.errors import RelayProtocolError
from tunnel_relay.inner_link import InnerLink, carry
from tunnel_relay.protocol.frames import Frame, FrameType


@attrs.define(eq=False)
class Queue:
    """A source with frames, and with more at a time."""

    frames: list[Frame]
    later: float | None = None

    def frames_to_send(self, most: int, now: float) -> list[Frame]:
        assert most > 0
        if self.later is not None and now >= self.later:
            self.later = None
            return [Frame(FrameType.PONG, 9)]
        taken, self.frames = self.frames[:1], self.frames[1:]
        return taken

    def next_timer(self) -> float | None:
        return self.later


async def test_sources_take_turns_behind_what_is_sent() -> None:
    heard: list[int] = []
    link = InnerLink(lambda frame: heard.append(frame.session))
    link.add(Queue([Frame(FrameType.PING, 1), Frame(FrameType.PING, 2)]))
    gone = Queue([Frame(FrameType.PING, 5)])
    link.add(gone)
    link.add(Queue([Frame(FrameType.PING, 3), Frame(FrameType.PING, 4)]))
    link.remove(gone)
    link.send(Frame(FrameType.PING, 7))
    async with open_background() as nursery:
        nursery.start_soon(link.run)
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [7, 1, 3, 2, 4]
        link.send(Frame(FrameType.PING, 8))
        await trio.testing.wait_all_tasks_blocked()
        assert heard[-1] == 8
        nursery.cancel_scope.cancel()


async def test_a_source_is_asked_when_it_said(autojump_clock: MockClock) -> None:
    heard: list[float] = []
    link = InnerLink(lambda _frame: heard.append(trio.current_time()))
    due = trio.current_time() + 5
    link.add(Queue([], due))
    async with open_background() as nursery:
        nursery.start_soon(link.run)
        await trio.sleep(10)
        assert heard == [due]
        nursery.cancel_scope.cancel()


async def test_what_comes_one_way_has_the_other_asked(autojump_clock: MockClock) -> None:
    """An acknowledgement that is due in a moment is not known to be before."""
    heard: list[float] = []
    back = InnerLink(lambda _frame: heard.append(trio.current_time()))
    source = Queue([])
    back.add(source)

    def acknowledge(_frame: Frame) -> None:
        source.later = trio.current_time() + 0.05

    there = InnerLink(acknowledge)
    async with open_background() as nursery:
        nursery.start_soon(carry, there, back)
        await trio.sleep(1)
        there.send(Frame(FrameType.PING, 1))
        due = trio.current_time() + 0.05
        await trio.sleep(1)
        assert heard == [due]
        nursery.cancel_scope.cancel()


async def test_nonsense_ends_it() -> None:
    def complain(_frame: Frame) -> None:
        raise RelayProtocolError("what?")

    good, bad = InnerLink(lambda _frame: None), InnerLink(complain)
    bad.send(Frame(FrameType.PING, 1))
    with trio.fail_after(5):
        assert await carry(good, bad) == "what?"
