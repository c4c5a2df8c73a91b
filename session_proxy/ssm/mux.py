"""Many connections to one remote host through one SSM session: ``AWS-StartPortForwardingSessionToRemoteHost``.

The multiplexer has no window per stream. What a stream holds that nobody reads is bounded, so at last the session
is not read, and all streams wait. Nobody else can be helped then: who opens a stream is told (`SsmMux.held_up`) and
takes another session, and the stream that stays unread while others wait is reset.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from session_proxy.errors import RefusedError
from session_proxy.profile.model import DataChannel as DataChannelSettings
from session_proxy.protocol.smux import MAX_DATA, Smux, SmuxError, StreamClosed, StreamData
from session_proxy.protocol.ssm_frames import Flag
from session_proxy.ssm.carrying import open_data_channel
from session_proxy.ssm.data_channel import DataChannel, Dialing
from session_proxy.ssm.errors import AgentTooOldError, DataChannelError, SsmError
from session_proxy.ssm.session import SessionControl, StartedSession
from tunnel_relay.background import open_background
from tunnel_relay.streams import OneAtATime

# What all streams of a session may hold for their readers: the reference's shared receive budget
# (smux.DefaultConfig, MaxReceiveBuffer). Beyond it the session is not read, and all of them wait.
RECEIVE_BUDGET = 4 * 1024 * 1024

# A session whose streams hold so much counts as held up until they hold half of it: one that reads slowly, as a
# download with a limited rate does, keeps it as full. And it does after so long, in seconds; most pauses are shorter.
HELD_UP_AFTER = 1.0

# Streams that hold half of the budget or more, and that nobody has read for this long (seconds), are reset, the fullest
# first, if another one waits for data. Shorter, and who looks at one page of a long answer would lose the rest; longer,
# and the programs that wait give up themselves.
UNREAD_LIMIT = 30.0
UNREAD_CHECK = 1.0

# The agent says that a connection failed with a flag that names no stream, and then closes the stream. One that
# is closed before a byte came, after such a flag, is taken for the one that failed. Its silence proves nothing,
# so a connection counts as made after a round trip and a moment, in which most refusals come, and at the latest
# after this, in seconds.
REFUSAL_MOMENT = 0.03
REFUSAL_LIMIT = 0.25


@attrs.define(eq=False)
class SsmMuxStream(trio.abc.Stream):
    """One connection. It cannot be half-closed: the agent closes both directions when one ends."""

    _mux: SsmMux
    _id: int
    _inbox: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _ended: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _reset: str = attrs.field(default="", init=False)
    """Why it was reset here."""
    _unread_since: float = attrs.field(default=math.inf, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _one_sender: OneAtATime = attrs.field(factory=lambda: OneAtATime("sending on"), init=False)
    _one_receiver: OneAtATime = attrs.field(factory=lambda: OneAtATime("receiving from"), init=False)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, or ``b""`` where the far end closed the connection."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint()
        self._check_open()
        with self._one_receiver:
            while not self._inbox:
                if self._ended:
                    return b""
                if self._mux.closed.is_set():
                    raise self._mux.broken()
                await self._changed.wait()
                self._check_open()
            size = len(self._inbox) if max_bytes is None else min(max_bytes, len(self._inbox))
            data = bytes(self._inbox[:size])
            del self._inbox[:size]
            self._unread_since = trio.current_time() if self._inbox else math.inf
            self._mux.consumed(size)
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; where this is cancelled, any part of it may have been sent."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        with self._one_sender:
            if self._ended:
                raise trio.BrokenResourceError("the far end closed the connection")
            await self._mux.send(self._id, data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        with self._one_sender:
            await self._mux.wait_writable()

    async def aclose(self) -> None:
        """Close the connection."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Do what `aclose` does, without a checkpoint: closing never waits."""
        if not self._closed:
            self._closed = True
            self._mux.forget(self._id, len(self._inbox))
            self._inbox.clear()
            self.change()

    def reset(self, reason: str) -> None:
        """Close the connection, and let who uses it know why; the mux's to call."""
        if not self._closed:
            self.close()
            self._reset = reason

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived; the mux's to call."""
        self._inbox += data
        self._unread_since = min(self._unread_since, trio.current_time())
        self.change()

    def end(self) -> None:
        """Take the far end's close; the mux's to call."""
        self._ended = True
        self.change()

    def change(self) -> None:
        """Wake who waits."""
        self._changed.set()
        self._changed = trio.Event()

    @property
    def ended(self) -> bool:
        """Whether the far end closed it."""
        return self._ended

    @property
    def starving(self) -> bool:
        """Whether somebody waits for bytes."""
        return self._one_receiver.busy and not self._inbox

    @property
    def held(self) -> int:
        """How many bytes have come that nobody has read."""
        return len(self._inbox)

    @property
    def unread_since(self) -> float:
        """Since when nobody has read what came; infinity where everything was read."""
        return self._unread_since

    async def wait_changed(self) -> None:
        """Wait for bytes, or the end."""
        await self._changed.wait()

    def _check_open(self) -> None:
        if self._reset:
            raise trio.BrokenResourceError(self._reset)
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")


@attrs.define(eq=False)
class SsmMux:
    """The connections of one session. Open it with `open_ssm_mux`."""

    _data_channel: DataChannel
    _smux: Smux = attrs.field(factory=Smux, init=False)
    _streams: dict[int, SsmMuxStream] = attrs.field(factory=dict[int, SsmMuxStream], init=False)
    _held: int = attrs.field(default=0, init=False)
    _room: trio.Event = attrs.field(factory=trio.Event, init=False)
    _full_since: float = attrs.field(default=math.inf, init=False)
    _failed_connects: int = attrs.field(default=0, init=False)

    @property
    def closed(self) -> trio.Event:
        """Set when the session has ended; `failure` says why."""
        return self._data_channel.closed

    @property
    def failure(self) -> SsmError | None:
        """Why the session ended, where it did not end normally."""
        return self._data_channel.failure

    @property
    def streams(self) -> int:
        """How many connections are open."""
        return len(self._streams)

    @property
    def held_up(self) -> bool:
        """Whether a new connection would wait: for a stream that nobody reads, or for the session to be resumed."""
        since = min(self._full_since, self._data_channel.away_since)
        return trio.current_time() >= since + HELD_UP_AFTER

    async def connect(self) -> SsmMuxStream:
        """Open a connection to the host that the session is for.

        Raises:
          RefusedError: the agent said at once that it cannot connect.
          SsmError: the session has ended.

        """
        if self.closed.is_set():
            raise self.failure or DataChannelError("the session has ended")
        try:
            stream_id = self._smux.open_stream()
        except SmuxError as exc:
            raise DataChannelError(str(exc)) from exc
        stream = self._streams[stream_id] = SsmMuxStream(self, stream_id)
        failed_before = self._failed_connects
        self._flush()
        try:
            with trio.move_on_after(min(REFUSAL_LIMIT, 1.5 * self._data_channel.round_trip + REFUSAL_MOMENT)):
                while not (stream.ended or stream.held or self.closed.is_set()):
                    await stream.wait_changed()
        except trio.Cancelled:
            # Nobody will have it: the agent is not to keep a connection for it.
            stream.close()
            raise
        if stream.ended and not stream.held and self._failed_connects > failed_before:
            await stream.aclose()
            raise RefusedError("the agent could not connect: the host refused, or has no such name or route")
        return stream

    async def send(self, stream_id: int, data: bytes | bytearray | memoryview) -> None:
        """Send *data* on a stream; the stream's to call."""
        # A frame at a time, whole or not at all: whoever is cancelled here, or closes a stream meanwhile, must
        # not cut a frame of another in two.
        with memoryview(data).cast("B") as view:
            for start in range(0, len(view), MAX_DATA):
                await self.wait_writable()
                self._smux.send_data(stream_id, view[start : start + MAX_DATA])
                self._flush()

    async def wait_writable(self) -> None:
        """Wait until `send` would not wait."""
        try:
            await self._data_channel.wait_writable()
        except SsmError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    def consumed(self, size: int) -> None:
        """Say that *size* bytes were read; the stream's to call."""
        self._held -= size
        if self._held <= RECEIVE_BUDGET // 2:
            self._full_since = math.inf
        self._room.set()

    def forget(self, stream_id: int, unread: int) -> None:
        """Close a stream of which *unread* bytes were not read; the stream's to call."""
        self._streams.pop(stream_id, None)
        self.consumed(unread)
        self._smux.close_stream(stream_id)
        self._flush()

    def broken(self) -> trio.BrokenResourceError:
        """Return the error for a stream whose session has ended."""
        return trio.BrokenResourceError(str(self.failure or "the session has ended"))

    async def run(self) -> None:
        """Hand out what arrives, until the session ends."""
        try:
            while data := await self._data_channel.receive_some():
                self._smux.receive_data(data)
                self._hand_out()
                while self._held > RECEIVE_BUDGET:
                    self._full_since = min(self._full_since, trio.current_time())
                    self._room = trio.Event()
                    with trio.move_on_after(UNREAD_CHECK):
                        await self._room.wait()
                    self._reset_unread()
        except SmuxError as exc:
            self._data_channel.fail(DataChannelError(f"the agent's multiplexer cannot be understood: {exc}"))
        except SsmError:
            # It is the data channel's `failure`, which every stream reports.
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.change()

    def _reset_unread(self) -> None:
        """Reset a stream that has held up others for long."""
        long_ago = trio.current_time() - UNREAD_LIMIT
        if self._full_since > long_ago or not any(stream.starving for stream in self._streams.values()):
            return
        unread = [stream for stream in self._streams.values() if stream.unread_since <= long_ago]
        if sum(stream.held for stream in unread) >= RECEIVE_BUDGET // 2:
            max(unread, key=lambda stream: stream.held).reset(
                f"nobody read it for {UNREAD_LIMIT:.0f} s, and it held up the other connections to its destination"
            )

    def _hand_out(self) -> None:
        while self._data_channel.flags:
            if self._data_channel.flags.popleft() == Flag.CONNECT_TO_PORT_ERROR:
                self._failed_connects += 1
        while (event := self._smux.next_event()) is not None:
            stream = self._streams.get(event.stream_id)
            match event:
                case StreamData(data=data) if stream is not None:
                    self._held += len(data)
                    stream.feed(data)
                case StreamClosed() if stream is not None:
                    stream.end()
                case _:
                    # A stream that we have closed meanwhile.
                    pass
        self._flush()

    def _flush(self) -> None:
        self._data_channel.queue(self._smux.data_to_send())


@asynccontextmanager
async def open_ssm_mux(
    session: StartedSession,
    control: SessionControl,
    settings: DataChannelSettings,
    dialing: Dialing = Dialing(),  # noqa: B008  # a frozen value
) -> AsyncGenerator[SsmMux, None]:
    """Open the multiplexer of a port forwarding session; the block's end ends the session.

    Raises:
      AgentTooOldError: the agent cannot multiplex.
      SsmError: the data channel could not be opened.

    """
    async with open_data_channel(session, control, settings, dialing, hold=0.0) as data_channel:
        ready = data_channel.ready
        assert ready is not None, "an open data channel is ready"
        if not ready.features.multiplexing:
            raise AgentTooOldError(
                f"the instance's SSM agent is version {ready.agent_version}; "
                'update it to 3.0.197.0 or newer, or use kind = "ssm"'
            )
        mux = SsmMux(data_channel)
        async with open_background() as nursery:
            nursery.start_soon(mux.run)
            yield mux
