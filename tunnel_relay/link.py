"""One WebSocket of a relay under Trio: frames both ways, and signs of life."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs
import trio

from tunnel_relay.errors import LinkLostError, RelayProtocolError, WebSocketError
from tunnel_relay.protocol.frames import LINK, Frame, FrameType, decode, encode
from tunnel_relay.websocket import WebSocket

# What one message holds, or a frame more; and what that grows to where so much leaves quickly: then nobody waits long
# behind it. Longer ones cost both ends and the relay a quarter less.
MESSAGE = 64 * 1024
LONGEST = 256 * 1024

# Seconds that sending may take for the next message to be longer.
QUICK = 0.02

# Bytes of what the link itself has to say that may wait while the other end reads nothing.
MOST_OWN = 1024 * 1024

# What a PING may hold, for it comes back (as in RFC 6455, section 5.5).
MOST_PING = 125

# Frames in a row that are heeded before others have their turn.
FRAMES = 64

# Codes of RFC 6455, section 7.4.1: that we go, and that the other end breaks the rules.
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002


@attrs.frozen(kw_only=True)
class LinkSettings:
    """How a link notices that it is dead.

    Attributes:
      heartbeat: Seconds between two PINGs.
      silence: Seconds in which nothing was heard, after which the link counts as lost. So others, who are told of it,
        know within 45 s, too.

    """

    heartbeat: float = 30.0
    silence: float = 40.0


class Source(Protocol):
    """What has frames to send over a link, and may have more at any time."""

    def frames_to_send(self, most: int, now: float) -> list[Frame]:
        """Return what to send now: *most* bytes, or a frame more."""
        ...

    def next_timer(self) -> float | None:
        """Return when to ask again without being told to."""
        ...


class FrameCarrier(Protocol):
    """What carries frames to another end: a `Link`, or something within one process."""

    def send(self, frame: Frame) -> None:
        """Send *frame* before what the sources have."""
        ...

    def add(self, source: Source) -> None:
        """Send what *source* has, from now on."""
        ...

    def remove(self, source: Source) -> None:
        """Send nothing more of *source*."""
        ...

    def poke(self) -> None:
        """Ask the sources."""
        ...


class _DeafError(LinkLostError):
    """Nothing is heard any more, or nobody there hears us."""


@attrs.define(eq=False)
class Link:
    """Sends what its sources have, in turn, and hands what comes to *heed*, which must not block.

    Attributes:
      websocket: What carries the frames.
      heed: Called with each frame that does not concern the link itself. A payload is a view of its message.
      settings: How to notice that it is dead.
      round_trip: Seconds from the last PING to its answer; None before the first.

    """

    websocket: WebSocket
    heed: Callable[[Frame], None]
    settings: LinkSettings = attrs.field(factory=LinkSettings)
    round_trip: float | None = attrs.field(default=None, init=False)
    _pinged_at: float | None = attrs.field(default=None, init=False)
    _pong: trio.Event = attrs.field(factory=trio.Event, init=False)
    _sources: dict[Source, None] = attrs.field(factory=dict[Source, None], init=False)
    _own: deque[Frame] = attrs.field(factory=deque[Frame], init=False)
    _own_bytes: int = attrs.field(default=0, init=False)
    _sending: bool = attrs.field(default=False, init=False)
    _most: int = attrs.field(default=MESSAGE, init=False)
    _overrun: trio.Event = attrs.field(factory=trio.Event, init=False)
    _poked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _all_sent: trio.Event = attrs.field(factory=trio.Event, init=False)
    _heard_at: float = attrs.field(factory=trio.current_time, init=False)
    _held_until: float = attrs.field(default=-math.inf, init=False)

    def send(self, frame: Frame) -> None:
        """Send *frame* before what the sources have; where too many wait, the link is lost."""
        if self._overrun.is_set():
            return
        self._own.append(frame)
        self._own_bytes += len(frame)
        # What is not on its way yet, since much is said at once, is taken in a moment.
        if self._own_bytes > MOST_OWN and self._sending:
            self._overrun.set()
        self.poke()

    def add(self, source: Source) -> None:
        """Send what *source* has, from now on."""
        self._sources[source] = None
        self.poke()

    def remove(self, source: Source) -> None:
        """Send nothing more of *source*."""
        self._sources.pop(source, None)

    def poke(self) -> None:
        """Ask the sources."""
        self._poked.set()

    async def wait_sent(self) -> None:
        """Wait until all that there is to send now has been given to the network; for ever if the link is lost."""
        self._all_sent = trio.Event()
        self.poke()
        await self._all_sent.wait()

    def ping(self) -> trio.Event:
        """Ask for a sign of life; what is returned is set when there is one."""
        self._pinged_at = trio.current_time()
        self.send(Frame(FrameType.PING))
        return self._pong

    def hold(self, seconds: float) -> None:
        """Hear nothing more for so long, from the next message on."""
        self._held_until = max(self._held_until, trio.current_time() + seconds)

    async def run(self) -> None:
        """Carry frames until the link is lost.

        Raises:
          LinkLostError: it is; the message says why.

        """
        why = LinkLostError("the link ended")
        async with trio.open_nursery() as nursery:

            async def until_lost(work: Callable[[], Awaitable[None]]) -> None:
                nonlocal why
                try:
                    await work()
                except LinkLostError as exc:
                    why = exc
                except WebSocketError as exc:
                    why = LinkLostError(str(exc))
                    why.__cause__ = exc
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_lost, self._read)
            nursery.start_soon(until_lost, self._write)
            nursery.start_soon(until_lost, self._beat)
            nursery.start_soon(until_lost, self._watch_overrun)
        if isinstance(why, _DeafError):
            # It would be waited for in vain, and others wait for us.
            await self.websocket.abandon()
        raise why

    async def _read(self) -> None:
        heeded = 0
        while True:
            for message in await self.websocket.receive_many():
                if self._held_until > trio.current_time():
                    self.poke()
                    await trio.sleep_until(self._held_until)
                self._heard_at = trio.current_time()
                if isinstance(message, str):
                    raise LinkLostError("the other end sent text")
                try:
                    for frame in decode(message):
                        self._heed(frame)
                        heeded += 1
                        if heeded % FRAMES == 0:
                            await trio.lowlevel.checkpoint()
                except RelayProtocolError as exc:
                    await self.websocket.aclose(PROTOCOL_ERROR, str(exc))
                    raise LinkLostError(f"the other end broke the protocol: {exc}") from exc
            # What came may be answered, and makes room.
            self.poke()

    def _heed(self, frame: Frame) -> None:
        if frame.session != LINK or frame.type not in (FrameType.PING, FrameType.PONG):
            self.heed(frame)
        elif frame.type is FrameType.PONG:
            self._answered()
        elif len(frame.payload) > MOST_PING:
            raise RelayProtocolError(f"a PING holds {len(frame.payload)} bytes")
        else:
            # The message that the payload is a view of need not be kept for it.
            self.send(attrs.evolve(frame, type=FrameType.PONG, payload=bytes(frame.payload)))

    def _answered(self) -> None:
        self._pong.set()
        self._pong = trio.Event()
        if self._pinged_at is not None:
            self.round_trip = trio.current_time() - self._pinged_at
            self._pinged_at = None

    async def _write(self) -> None:
        while True:
            self._poked = trio.Event()
            try:
                messages = self._messages(trio.current_time())
            except RelayProtocolError as exc:
                # The next link begins to count anew.
                await self.websocket.aclose(GOING_AWAY, str(exc))
                raise LinkLostError(f"nothing more can be sent: {exc}") from None
            if messages:
                await self._send(messages)
                continue
            self._all_sent.set()
            timers = [timer for source in self._sources if (timer := source.next_timer()) is not None]
            with trio.move_on_at(min(timers, default=math.inf)):
                await self._poked.wait()

    async def _send(self, messages: list[bytes]) -> None:
        """Send *messages*, and see how long those that follow may be."""
        self._sending = True
        began = trio.current_time()
        await self.websocket.send_many(messages)
        quick = trio.current_time() - began < QUICK
        self._most = min(2 * self._most, LONGEST) if quick else MESSAGE
        self._sending = False

    def _messages(self, now: float) -> list[bytes]:
        """Return a message of each that has something to say."""
        messages: list[bytes] = []
        while self._own:
            messages.append(encode(self._take_own()))
        for source in list(self._sources):
            frames = source.frames_to_send(self._most, now)
            if frames:
                messages.append(encode(frames))
        return messages

    def _take_own(self) -> list[Frame]:
        """Take as many frames as a message holds, or one."""
        taken = [self._own.popleft()]
        size = len(taken[0])
        while self._own and size + len(self._own[0]) <= MESSAGE:
            size += len(self._own[0])
            taken.append(self._own.popleft())
        self._own_bytes -= size
        return taken

    async def _watch_overrun(self) -> None:
        await self._overrun.wait()
        raise _DeafError(f"the other end reads nothing: {MOST_OWN} bytes wait for it")

    async def _beat(self) -> None:
        heartbeat, silence = self.settings.heartbeat, self.settings.silence
        while True:
            lost_at = max(self._heard_at, self._held_until) + silence
            await trio.sleep_until(min(trio.current_time() + min(heartbeat, silence) / 2, lost_at))
            heard_at = max(self._heard_at, self._held_until)
            if trio.current_time() >= heard_at + silence:
                raise _DeafError(f"nothing was heard for {silence:g} s")
            if trio.current_time() - heard_at >= heartbeat / 2:
                self.send(Frame(FrameType.PING))
