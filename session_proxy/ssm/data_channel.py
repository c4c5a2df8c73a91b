"""The byte stream of one SSM session, as its users see it; `session_proxy.ssm.carrying` moves the bytes."""

from __future__ import annotations

import math
import ssl
from collections import deque
from collections.abc import Callable

import attrs
import trio

from session_proxy.protocol.ssm_channel import (
    Channel,
    DataReceived,
    Ended,
    FlagReceived,
    HandshakeRefused,
    Ready,
)
from session_proxy.protocol.ssm_frames import Flag
from session_proxy.ssm.errors import DataChannelError, SsmError
from tunnel_relay.websocket import printable

# What users may queue, and what may wait for them, before they are made to wait or the WebSocket is not read.
SEND_LIMIT = 256 * 1024
RECEIVE_LIMIT = 1024 * 1024
# Acknowledgements that may wait for their turn: what the pace sends in a second. An agent that sends faster than
# we may acknowledge is held up by this, rather than believe in losses.
ACKNOWLEDGEMENT_LIMIT = 900

# Parting: until what was sent is acknowledged, and until the agent has ended the session, in seconds.
FLUSH_LIMIT = 2.0
GOODBYE_LIMIT = 1.0


@attrs.frozen(kw_only=True)
class Dialing:
    """How WebSockets are dialled, and who is told what people should read."""

    proxy: str | None = None
    ssl_context: ssl.SSLContext | None = None
    notify: Callable[[str], None] = lambda _message: None


@attrs.define(eq=False)
class DataChannel:
    """The byte stream of one session. Open it with `session_proxy.ssm.carrying.open_data_channel`.

    One task may receive, one may send.
    """

    channel: Channel
    notify: Callable[[str], None]
    failure: SsmError | None = attrs.field(default=None, init=False)
    """Why the channel ended, once it has; `None` after a normal end too."""
    ready: Ready | None = attrs.field(default=None, init=False)
    flags: deque[int] = attrs.field(factory=deque[int], init=False)
    closed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Nothing moves any more."""
    away: str = attrs.field(default="", init=False)
    """Why the far end cannot be reached for now; "" where it can."""
    away_since: float = attrs.field(default=math.inf, init=False)
    """When it was heard no more; infinity where it is heard."""
    heard_data: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The agent has sent data: its port answers."""
    poked: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when there may be something to send; who sends puts a new one."""
    _inbox: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _let_go: bool = attrs.field(default=False, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _away_changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    # -- for users

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, ``b""`` where the session has ended normally.

        Raises:
          SsmError: it ended otherwise.

        """
        await trio.lowlevel.checkpoint()
        while not self._inbox or self._let_go:
            self._check_open()
            if self.closed.is_set():
                if self.failure is not None:
                    raise self.failure
                return b""
            await self._changed.wait()
        crowded = not self.has_room
        size = len(self._inbox) if max_bytes is None else min(max_bytes, len(self._inbox))
        with memoryview(self._inbox) as view:
            data = bytes(view[:size])
        del self._inbox[:size]
        if crowded:
            self.change()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue *data*, waiting while too much of it is queued; raises `SsmError` where the session has ended."""
        await trio.lowlevel.checkpoint()
        with memoryview(data).cast("B") as view:
            start = 0
            while start < len(view):
                await self.wait_writable()
                piece = view[start : start + SEND_LIMIT]
                self.channel.send_data(piece)
                start += len(piece)
                self.poked.set()

    async def wait_writable(self) -> None:
        """Wait until `send_all` would not wait; raises `SsmError` where the session has ended."""
        while True:
            self._check_open()
            if self.closed.is_set():
                raise self.failure or DataChannelError("the session has ended")
            if self.channel.unsent < SEND_LIMIT:
                return
            await self._changed.wait()

    def queue(self, data: bytes) -> None:
        """Queue a few bytes that must not wait or be parted, such as the end of a stream."""
        if data and not self.closed.is_set():
            self.channel.send_data(data)
            self.poked.set()

    def close(self) -> None:
        """Say that the user wants no more: who waits gets `trio.ClosedResourceError`. What is queued is still sent."""
        self._let_go = True
        self.change()

    def fail(self, failure: SsmError) -> None:
        """End the channel because of *failure*; the first one counts."""
        if not self.closed.is_set():
            self.failure = failure
            self.end()

    def end(self) -> None:
        """End the channel."""
        self.closed.set()
        self.change()

    def _check_open(self) -> None:
        if self._let_go:
            raise trio.ClosedResourceError("this stream is closed")

    # -- for the task that carries

    @property
    def round_trip(self) -> float:
        """The time to the agent and back, in seconds."""
        return self.channel.sending.round_trip.rtt

    @property
    def has_room(self) -> bool:
        """Whether more may be read."""
        return len(self._inbox) <= RECEIVE_LIMIT and self.channel.unacknowledged <= ACKNOWLEDGEMENT_LIMIT

    def set_away(self, reason: str) -> None:
        """Say why the far end cannot be reached for now, or by "" that it is heard again."""
        if reason != self.away:
            self.away = reason
            self.away_since = min(self.away_since, trio.current_time()) if reason else math.inf
            self._away_changed.set()
            self._away_changed = trio.Event()

    async def wait_away_changed(self) -> None:
        """Wait until `away` is another."""
        await self._away_changed.wait()

    async def wait_changed(self) -> None:
        """Wait until something happens: data, a flag, room, the end."""
        if not self.closed.is_set():
            await self._changed.wait()

    def change(self) -> None:
        """Wake who waits for something to happen."""
        self._changed.set()
        self._changed = trio.Event()

    def take_events(self) -> None:
        """Take what the channel has to say."""
        while (event := self.channel.next_event()) is not None:
            match event:
                case DataReceived(data):
                    if not self._let_go:
                        self._inbox += data
                    self.heard_data.set()
                case Ready():
                    self.ready = event
                    if event.customer_message:
                        self.notify(printable(event.customer_message))
                case FlagReceived(flag):
                    self.flags.append(flag)
                case HandshakeRefused(reason):
                    self.fail(DataChannelError(f"the handshake with the agent failed: {printable(reason)}"))
                case Ended(output):
                    if output:
                        self.fail(DataChannelError(f"AWS ended the session: {printable(output)}"))
                    self.end()
        self.poked.set()
        self.change()

    async def say_goodbye(self) -> None:
        """Let what was sent arrive, and have the agent end the session; bounded."""
        if self.ready is None or self.closed.is_set():
            return
        with trio.move_on_after(FLUSH_LIMIT):
            while not (self.channel.drained or self.closed.is_set()):
                await self._changed.wait()
        if self.ready.features.terminate_flag and not self.closed.is_set():
            self.channel.send_flag(Flag.TERMINATE_SESSION)
            self.poked.set()
            with trio.move_on_after(GOODBYE_LIMIT):
                await self.closed.wait()
