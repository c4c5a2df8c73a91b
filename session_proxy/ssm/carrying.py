"""Carry one SSM data channel: WebSocket after WebSocket under one session, until it ends.

Three tasks serve a WebSocket: one reads, one writes when the channel's timers or its users ask, one pings. When
the WebSocket is lost, or nothing is heard on it, the session is resumed with a new token within a time budget;
users notice a pause, and may ask for its reason (`DataChannel.away`). When that fails, they get the reason.
"""

from __future__ import annotations

import math
import random
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from session_proxy.profile.model import DataChannel as DataChannelSettings
from session_proxy.protocol.ssm_channel import Channel
from session_proxy.protocol.ssm_messages import open_data_channel as opening_message
from session_proxy.ssm.data_channel import DataChannel, Dialing
from session_proxy.ssm.errors import DataChannelError, SessionEndedError, SsmError
from session_proxy.ssm.session import SessionControl, StartedSession
from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError, WebSocketError, WebSocketRejectedError
from tunnel_relay.websocket import WebSocket, open_websocket

# Load balancers on the way cut what is silent for a minute or so; the reference pings every 5 minutes and never
# looks at the answer.
PING_INTERVAL = 25.0
# Silence, three pings long, after which the WebSocket counts as dead.
DEAD_AFTER = 75.0

CONNECT_LIMIT = 15.0
# The agent gives a client 15 s for its half of the handshake; starting it takes the agent far less.
HANDSHAKE_LIMIT = 20.0
TERMINATE_LIMIT = 5.0

# Attempts to reconnect: the first at once, then after these delays, each doubled.
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
# The first WebSocket of a session gets this many tries: its token is good for a moment only.
FIRST_TRIES = 3

# A download comes as up to a thousand frames a second, and waking up for each costs more than the frame. So while
# messages follow each other closely and hardly any are answered with data, reads wait for this long.
GATHER = 0.008
LULL = 0.025
FEW_ANSWERS = 8
MANY_MESSAGES = 24
# A read that brought so much needs no company.
ENOUGH = 32 * 1024

# The close code of the service for a token that it does not take.
UNSUPPORTED_DATA = 1003
NO_CLOSE_FRAME = 1006


@attrs.define(eq=False)
class Tempo:
    """Tells a download from a conversation, in which nothing may wait."""

    _at: float = attrs.field(default=-math.inf, init=False)
    _received: int = attrs.field(default=0, init=False)
    _sent: int = attrs.field(default=0, init=False)

    def pause(self, messages: Sequence[str | bytes], sent: int, now: float) -> float:
        """Return how long the next read should wait, after *messages* came and *sent* data frames went since."""
        if now - self._at > LULL:
            self._received = self._sent = 0
        self._at = now
        self._received += len(messages)
        self._sent += sent
        if self._received > 10 * MANY_MESSAGES:
            self._received //= 2
            self._sent //= 2
        one_way = self._received >= MANY_MESSAGES and self._sent * FEW_ANSWERS <= self._received
        return GATHER if one_way and sum(map(len, messages)) < ENOUGH else 0.0


@attrs.define(eq=False)
class Carrier:
    """Carries *data_channel* until it is closed."""

    session: StartedSession
    control: SessionControl
    dialing: Dialing
    data_channel: DataChannel
    resume: float
    """For how long a lost WebSocket may be away, in seconds."""
    trouble: str = attrs.field(default="", init=False)
    """Why the last WebSocket was lost, or never came up."""
    _client_id: uuid.UUID = attrs.field(factory=uuid.uuid4, init=False)
    _heard: bool = attrs.field(default=False, init=False)
    _heard_at: float = attrs.field(factory=trio.current_time, init=False)
    _lost_at: float = attrs.field(default=-math.inf, init=False)
    _tries: int = attrs.field(default=0, init=False)
    _stalled: bool = attrs.field(default=False, init=False)

    async def run(self) -> None:
        """Carry until the channel is closed; never raises what the outside can cause."""
        token: str | None = self.session.token
        while token is not None:
            self._heard = False
            self._gone(await self._serve_websocket(token))
            if self.data_channel.closed.is_set():
                return
            if self._heard or self._lost_at == -math.inf:
                # It worked in between: the budget is that of a new loss.
                self._lost_at, self._tries = trio.current_time(), 0
            token = await self._next_token()

    async def _next_token(self) -> str | None:
        """Return the token for the next attempt, or `None` where there is none: the channel has failed then."""
        while True:
            deadline = self._lost_at + self.resume
            with trio.move_on_at(deadline):
                await self._wait_a_moment()
                if self.data_channel.ready is None and not self._ever_heard:
                    # The session has never been used: the first token is still the one.
                    return self._first_token()
                try:
                    return (await self.control.resume(self.session.session_id)).token
                except SsmError as exc:
                    if exc.needs_person or isinstance(exc, SessionEndedError):
                        self.data_channel.fail(exc)
                        return None
                    self._gone(str(exc))
                continue
            self.data_channel.fail(
                DataChannelError(
                    f"the data channel was lost and could not be resumed within {self.resume:.0f} s: {self.trouble}"
                )
            )
            return None

    def _gone(self, trouble: str) -> None:
        self.trouble = trouble
        self.data_channel.set_away(f"resuming the session: {trouble}")

    def _first_token(self) -> str | None:
        if self._tries < FIRST_TRIES:
            return self.session.token
        self.data_channel.fail(DataChannelError(f"the data channel could not be opened: {self.trouble}"))
        return None

    @property
    def _ever_heard(self) -> bool:
        return self.data_channel.channel.receiving.expected > 0

    async def _wait_a_moment(self) -> None:
        self._tries += 1
        if self._tries > 1:
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (min(self._tries, 10) - 2))
            await trio.sleep(delay * random.uniform(1, 1.3))  # noqa: S311  # spreads clients, hides nothing
        else:
            await trio.lowlevel.checkpoint()

    async def _serve_websocket(self, token: str) -> str:
        """Carry over one WebSocket, and return why it ended."""
        try:
            with trio.fail_after(CONNECT_LIMIT) as connecting:
                async with open_websocket(
                    self.session.stream_url, ssl_context=self.dialing.ssl_context, proxy=self.dialing.proxy
                ) as websocket:
                    await websocket.send_text(opening_message(token, uuid.uuid4(), self._client_id))
                    connecting.deadline = math.inf
                    self._heard_at = trio.current_time()
                    self.data_channel.channel.reconnected(self._heard_at)
                    return await self._run_tasks(websocket)
        except trio.TooSlowError:
            return f"no answer from the service within {CONNECT_LIMIT:.0f} s"
        except WebSocketError as exc:
            return _reason(exc)

    async def _run_tasks(self, websocket: WebSocket) -> str:
        broken: list[WebSocketError] = []
        async with open_background() as nursery:

            async def serve(work: Callable[[WebSocket], Awaitable[None]]) -> None:
                try:
                    await work(websocket)
                except WebSocketError as exc:
                    broken.append(exc)
                    nursery.cancel_scope.cancel()

            for work in (self._read, self._write, self._ping):
                nursery.start_soon(serve, work)
            await self.data_channel.closed.wait()
        return _reason(broken[0]) if broken else ""

    async def _read(self, websocket: WebSocket) -> None:
        data_channel, tempo = self.data_channel, Tempo()
        channel = data_channel.channel
        sent = channel.sending.next_sequence
        self._stalled = False
        while True:
            messages = await websocket.receive_many()
            now = self._heard_at = trio.current_time()
            self._heard = True
            data_channel.set_away("")
            for message in messages:
                channel.receive_message(message, now)
            data_channel.take_events()
            websocket.gather(tempo.pause(messages, channel.sending.next_sequence - sent, now))
            sent = channel.sending.next_sequence
            while not data_channel.has_room:
                # What is not read stays in the connection below, and at last with the agent: back-pressure.
                self._stalled = True
                await data_channel.wait_changed()
            self._stalled = False

    async def _write(self, websocket: WebSocket) -> None:
        data_channel = self.data_channel
        while True:
            data_channel.poked = trio.Event()
            now = trio.current_time()
            messages = data_channel.channel.messages_to_send(now)
            if messages:
                await websocket.send_many(messages)
                data_channel.change()
                continue
            with trio.move_on_at(data_channel.channel.next_timer(now)):
                await data_channel.poked.wait()

    async def _ping(self, websocket: WebSocket) -> None:
        while True:
            until = trio.current_time() + PING_INTERVAL
            with trio.move_on_at(until):
                await websocket.ping(uuid.uuid4().bytes)
                self._heard_at = trio.current_time()
                self.data_channel.set_away("")
                await trio.sleep_until(until)
            if self._stalled:
                # We do not listen, so that silence says nothing.
                self._heard_at = trio.current_time()
            elif trio.current_time() - self._heard_at >= DEAD_AFTER:
                raise WebSocketClosedError(NO_CLOSE_FRAME, f"nothing was heard for {DEAD_AFTER:.0f} s")


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
    channel = Channel(
        new_id=uuid.uuid4,
        epoch=time.time() - trio.current_time(),
        payload=settings.payload,
        frames_per_second=settings.frames_per_second,
        hold=hold,
    )
    data_channel = DataChannel(channel, dialing.notify)
    carrier = Carrier(session, control, dialing, data_channel, settings.resume)
    # An outer cancellation, which is how a pool closes its links and Ctrl-C the program, must leave the channel
    # working until the goodbye is said. That is bounded, and so is this shield.
    carrying = trio.CancelScope(shield=True)

    async def carry() -> None:
        with carrying:
            await carrier.run()

    try:
        async with open_background() as nursery:
            nursery.start_soon(carry)
            try:
                await _wait_ready(data_channel, carrier)
                yield data_channel
            finally:
                with trio.CancelScope(shield=True):
                    await data_channel.say_goodbye()
                data_channel.end()
                carrying.cancel()
    finally:
        if not channel.ended:
            with trio.move_on_after(TERMINATE_LIMIT, shield=True), suppress(SsmError):
                await control.terminate(session.session_id)


async def _wait_ready(data_channel: DataChannel, carrier: Carrier) -> None:
    with trio.move_on_after(HANDSHAKE_LIMIT):
        while data_channel.ready is None and not data_channel.closed.is_set():
            await data_channel.wait_changed()
    if data_channel.closed.is_set():
        raise data_channel.failure or DataChannelError("AWS ended the session during the handshake")
    if data_channel.ready is None:
        why = f" (last: {carrier.trouble})" if carrier.trouble else ""
        raise DataChannelError(
            f"the agent did not open its side of the session within {HANDSHAKE_LIMIT:.0f} s{why}; "
            "restart amazon-ssm-agent on the instance if this goes on"
        )
