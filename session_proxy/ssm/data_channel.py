"""Keep one SSM data channel going: WebSocket after WebSocket under one session, until it ends.

Three tasks serve a WebSocket: one reads, one writes when the channel's timers or its users ask, one pings. When
the WebSocket is lost, or nothing is heard on it, the session is resumed with a new token within a time budget;
users notice a pause. When that fails, they get the reason.
"""

from __future__ import annotations

import random
import ssl
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from session_proxy.profile.model import DataChannel as DataChannelSettings
from session_proxy.protocol.ssm_channel import (
    Channel,
    DataReceived,
    Ended,
    FlagReceived,
    HandshakeRefused,
    Ready,
)
from session_proxy.protocol.ssm_frames import Flag
from session_proxy.protocol.ssm_messages import open_data_channel as opening_message
from session_proxy.ssm.errors import DataChannelError, SessionEndedError, SsmError
from session_proxy.ssm.session import SessionControl, StartedSession
from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError, WebSocketError, WebSocketRejectedError
from tunnel_relay.websocket import WebSocket, open_websocket, printable

# Load balancers on the way cut what is silent for a minute or so; the reference pings every 5 minutes and never
# looks at the answer.
PING_INTERVAL = 25.0
# Silence, two pings long and more, after which the WebSocket counts as dead.
DEAD_AFTER = 75.0

CONNECT_LIMIT = 15.0
# The agent gives a client 15 s for its half of the handshake; starting it takes the agent far less.
HANDSHAKE_LIMIT = 20.0

# Attempts to reconnect: the first at once, then after these delays, each doubled.
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
# The first WebSocket of a session gets this many tries: its token is good for a moment only.
FIRST_TRIES = 3

# What users may queue, and what may wait for them, before they are made to wait or the WebSocket is not read.
SEND_LIMIT = 256 * 1024
RECEIVE_LIMIT = 1024 * 1024

# Parting: until what was sent is acknowledged, until the agent has ended the session, until AWS has been told.
FLUSH_LIMIT = 2.0
GOODBYE_LIMIT = 1.0
TERMINATE_LIMIT = 5.0

# The close code of the service for a token that it does not take.
UNSUPPORTED_DATA = 1003


@attrs.frozen(kw_only=True)
class Dialing:
    """How WebSockets are dialled, and who is told what people should read."""

    proxy: str | None = None
    ssl_context: ssl.SSLContext | None = None
    notify: Callable[[str], None] = lambda _message: None


@attrs.define(eq=False)
class DataChannel:
    """The byte stream of one session. Open it with `open_data_channel`.

    One task may receive, one may send.
    """

    session: StartedSession
    control: SessionControl
    settings: DataChannelSettings
    dialing: Dialing
    channel: Channel
    failure: SsmError | None = attrs.field(default=None, init=False)
    """Why the channel ended, once it has; `None` after a normal end too."""
    ready: Ready | None = attrs.field(default=None, init=False)
    flags: deque[int] = attrs.field(factory=deque[int], init=False)
    closed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Nothing moves any more."""
    heard_data: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The agent has sent data: its port answers."""
    _client_id: uuid.UUID = attrs.field(factory=uuid.uuid4, init=False)
    _inbox: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _let_go: bool = attrs.field(default=False, init=False)
    _poked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _last_heard: float = attrs.field(factory=trio.current_time, init=False)
    _last_message: float = attrs.field(default=0.0, init=False)

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
        size = len(self._inbox) if max_bytes is None else max_bytes
        data = bytes(self._inbox[:size])
        del self._inbox[:size]
        self._change()
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
                self._poked.set()

    async def wait_writable(self) -> None:
        """Wait until `send_all` would not wait; raises `SsmError` where the session has ended."""
        while True:
            self._check_open()
            if self.closed.is_set():
                raise self.failure or DataChannelError("the session has ended")
            if self.channel.unsent < SEND_LIMIT:
                return
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Wait until something happens: data, a flag, room, the end."""
        if not self.closed.is_set():
            await self._changed.wait()

    def queue(self, data: bytes) -> None:
        """Queue a few bytes that must not wait, such as the end of a stream."""
        if data and not self.closed.is_set():
            self.channel.send_data(data)
            self._poked.set()

    def close(self) -> None:
        """Say that the user wants no more: who waits gets `trio.ClosedResourceError`. What is queued is still sent."""
        self._let_go = True
        self._change()

    def fail(self, failure: SsmError) -> None:
        """End the channel because of *failure*."""
        if not self.closed.is_set():
            self.failure = failure
            self.closed.set()
            self._change()

    def _check_open(self) -> None:
        if self._let_go:
            raise trio.ClosedResourceError("this stream is closed")

    # -- one WebSocket after another

    async def run(self) -> None:
        """Serve the channel until it ends; never raises what the outside can cause."""
        token = self.session.token
        tries = 0
        lost_at: float | None = None
        delay = 0.0
        while not self.closed.is_set():
            tries += 1
            try:
                await self._serve_websocket(token)
                lost = "the connection broke"
            except trio.TooSlowError:
                lost = f"no answer from the service within {CONNECT_LIMIT:.0f} s"
            except WebSocketError as exc:
                lost = _reason(exc)
            if self.closed.is_set():
                return None
            now = trio.current_time()
            if lost_at is None or self._last_message > lost_at:
                # It worked in between: the budget is that of a new loss.
                lost_at, delay = now, 0.0
            if self.ready is None and tries >= FIRST_TRIES:
                return self.fail(DataChannelError(f"the data channel could not be opened: {lost}"))
            new_token = await self._resume(lost, lost_at, delay)
            if new_token is None:
                return None
            token = new_token
            delay = min(LONGEST_DELAY, max(FIRST_DELAY, 2 * delay) * random.uniform(1, 1.3))  # noqa: S311
        return None

    async def _resume(self, lost: str, lost_at: float, delay: float) -> str | None:
        """Return a new token, or `None` where the session is over or the budget spent."""
        while True:
            left = lost_at + self.settings.resume - trio.current_time()
            with trio.move_on_after(left):
                await trio.sleep(delay)
                if self.ready is None:
                    # The session has never been used: the first token is still the one.
                    return self.session.token
                try:
                    return (await self.control.resume(self.session.session_id)).token
                except SessionEndedError as exc:
                    self.fail(exc)
                    return None
                except SsmError as exc:
                    lost = str(exc)
                    if exc.needs_person:
                        self.fail(exc)
                        return None
                delay = min(LONGEST_DELAY, max(FIRST_DELAY, 2 * delay))
                continue
            self.fail(
                DataChannelError(
                    f"the data channel was lost and could not be resumed within {self.settings.resume:.0f} s: {lost}"
                )
            )
            return None

    async def _serve_websocket(self, token: str) -> None:
        with trio.fail_after(CONNECT_LIMIT) as connecting:
            async with open_websocket(
                self.session.stream_url, ssl_context=self.dialing.ssl_context, proxy=self.dialing.proxy
            ) as websocket:
                await websocket.send_text(opening_message(token, uuid.uuid4(), self._client_id))
                connecting.deadline = float("inf")
                self._last_heard = trio.current_time()
                self.channel.reconnected(self._last_heard)
                async with open_background() as nursery:
                    broken: list[WebSocketError] = []

                    async def serve(work: Callable[[WebSocket], object]) -> None:
                        try:
                            await work(websocket)  # type: ignore[misc]
                        except WebSocketError as exc:
                            broken.append(exc)
                        nursery.cancel_scope.cancel()

                    nursery.start_soon(serve, self._read)
                    nursery.start_soon(serve, self._write)
                    nursery.start_soon(serve, self._ping)
                    await self.closed.wait()
                if broken:
                    raise broken[0]

    async def _read(self, websocket: WebSocket) -> None:
        while True:
            message = await websocket.receive()
            now = self._last_heard = self._last_message = trio.current_time()
            self.channel.receive_message(message, now)
            self._take_events()
            self._poked.set()
            while len(self._inbox) > RECEIVE_LIMIT:
                # What is not read stays in the connection below, and at last with the agent: back-pressure.
                await self._changed.wait()
                self._last_heard = trio.current_time()

    async def _write(self, websocket: WebSocket) -> None:
        while True:
            self._poked = trio.Event()
            now = trio.current_time()
            messages = self.channel.messages_to_send(now)
            for message in messages:
                await websocket.send_binary(message)
            if messages:
                self._change()
                continue
            with trio.move_on_at(self.channel.next_timer(now)):
                await self._poked.wait()

    async def _ping(self, websocket: WebSocket) -> None:
        while True:
            with trio.move_on_after(DEAD_AFTER - PING_INTERVAL):
                await websocket.ping(uuid.uuid4().bytes)
                self._last_heard = trio.current_time()
            silent = trio.current_time() - self._last_heard
            if silent >= DEAD_AFTER - PING_INTERVAL:
                raise WebSocketClosedError(1006, f"nothing was heard for {silent:.0f} s")
            await trio.sleep(PING_INTERVAL)

    def _take_events(self) -> None:
        while (event := self.channel.next_event()) is not None:
            match event:
                case DataReceived(data):
                    self._inbox += data
                    self.heard_data.set()
                case Ready():
                    self.ready = event
                    if event.customer_message:
                        self.dialing.notify(printable(event.customer_message))
                case FlagReceived(flag):
                    self.flags.append(flag)
                case HandshakeRefused(reason):
                    self.fail(
                        DataChannelError(f"the agent asks for what a port session cannot have: {reason}")
                    )
                case Ended(output):
                    if output:
                        self.fail(DataChannelError(f"AWS ended the session: {printable(output)}"))
                    self.closed.set()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # -- parting

    async def say_goodbye(self) -> None:
        """Let what was sent arrive, and have the agent end the session; bounded."""
        if self.ready is None or self.closed.is_set():
            return
        with trio.move_on_after(FLUSH_LIMIT):
            while not (self.channel.drained or self.closed.is_set()):
                await self._changed.wait()
        if self.ready.features.terminate_flag and not self.closed.is_set():
            self.channel.send_flag(Flag.TERMINATE_SESSION)
            self._poked.set()
            with trio.move_on_after(GOODBYE_LIMIT):
                await self.closed.wait()


def _reason(exc: WebSocketError) -> str:
    match exc:
        case WebSocketClosedError(code=code) if code == UNSUPPORTED_DATA:
            return f"the service did not take the token: {exc.reason}"
        case WebSocketRejectedError(status=403):
            return f"{exc}; the session's token has expired, or a proxy on the way refuses WebSockets"
        case _:
            return str(exc)


@asynccontextmanager
async def open_data_channel(
    session: StartedSession,
    control: SessionControl,
    settings: DataChannelSettings,
    dialing: Dialing,
    *,
    hold: float,
) -> AsyncGenerator[DataChannel, None]:
    """Open the data channel of *session*, and yield it when the handshake with the agent is complete.

    *hold* is how long (seconds) data wait for the agent's own first bytes. However the block ends, the session is
    ended too: by a flag to the agent, and by TerminateSession.

    Raises:
      SsmError: it could not be opened.

    """
    data_channel = DataChannel(
        session,
        control,
        settings,
        dialing,
        Channel(
            new_id=uuid.uuid4,
            epoch=time.time() - trio.current_time(),
            payload=settings.payload,
            frames_per_second=settings.frames_per_second,
            hold=hold,
        ),
    )
    # An outer cancellation, which is how a pool closes its links and Ctrl-C the program, must leave the channel
    # working until the goodbye is said. That is bounded, and so is this shield.
    serving = trio.CancelScope(shield=True)

    async def serve() -> None:
        with serving:
            await data_channel.run()

    try:
        async with open_background() as nursery:
            nursery.start_soon(serve)
            try:
                await _wait_ready(data_channel)
                yield data_channel
            finally:
                with trio.CancelScope(shield=True):
                    await data_channel.say_goodbye()
                data_channel.closed.set()
                serving.cancel()
    finally:
        if not data_channel.channel.ended:
            with trio.move_on_after(TERMINATE_LIMIT, shield=True), suppress(SsmError):
                await control.terminate(session.session_id)


async def _wait_ready(data_channel: DataChannel) -> None:
    with trio.move_on_after(HANDSHAKE_LIMIT):
        while data_channel.ready is None and not data_channel.closed.is_set():
            await data_channel.wait_changed()
    if data_channel.closed.is_set():
        raise data_channel.failure or DataChannelError("AWS ended the session during the handshake")
    if data_channel.ready is None:
        raise DataChannelError(
            f"the agent did not open its side of the session within {HANDSHAKE_LIMIT:.0f} s; "
            "restart amazon-ssm-agent on the instance if this goes on"
        )
