"""An agent's session under Trio: `AgentChannel` between a client's link and a TCP connection to the port.

One task watches the timers, one reads the port, one writes to it; sending to the client does not wait. As with
AWS's agent, the session is not the WebSocket's: counters, buffers and the TCP connection stay while links come
and go.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable

import attrs
import trio

from session_proxy.lab.agent_channel import (
    AgentChannel,
    DataReceived,
    HandshakeDone,
    Origins,
    PortDisconnected,
    SessionEnded,
)
from session_proxy.lab.client_link import ClientLink
from session_proxy.lab.damage import Damage
from session_proxy.lab.documents import PortSession
from session_proxy.lab.faults import Faults
from session_proxy.lab.handshake import ClientAbilities
from session_proxy.lab.pace import PACED_PAYLOAD
from session_proxy.lab.retransmission import TICK
from session_proxy.protocol.ssm_frames import Flag
from tunnel_relay.background import open_background

# Where it does not keep AWS's pace: with AWS's 1024 bytes a client that acknowledges 900 frames a second gets
# 0.9 MB/s, with these 59 MB/s. The plugin takes up to 131 072 (specification, section 13).
UNPACED_PAYLOAD = 64 * 1024
# AWS's agent has no window, and at its pace needs none. Ours keeps its memory, and sends no more than clients put
# into order: what ours must refuse, while an earlier frame is missing, would all have to be sent again. More than a
# client acknowledges in a round trip.
MAX_UNACKNOWLEDGED = 8 * 1024 * 1024
# What may wait for a port that does not read; then frames are refused until it does.
MAX_WAITING = 8 * 1024 * 1024
# How long frames that nobody acknowledged hold up the end of a session (PrepareToCloseChannel).
DRAIN_TIME = 2.0
CONNECT_TIME = 10.0


@attrs.frozen(kw_only=True)
class AgentSettings:
    """How agents work. *host* is what an instance calls ``localhost``; see `LabSettings` for the others."""

    pace: bool = False
    payload: int | None = None
    host: str = "localhost"

    @property
    def frame_payload(self) -> int:
        """Bytes per frame of data."""
        return self.payload or (PACED_PAYLOAD if self.pace else UNPACED_PAYLOAD)


class AgentSession:
    """One session: `run` it once, attach links to it, and let a port's driver send and receive.

    Nothing blocks a link's reader: what arrives is taken in at once, and data wait here for the port.
    """

    def __init__(
        self, session_id: str, instance: str, wanted: PortSession, settings: AgentSettings, faults: Faults
    ) -> None:
        self.id = session_id
        self.instance = instance
        self.wanted = wanted
        self.token = ""
        self.settings = settings
        self.faults = faults
        self.detached_since = trio.current_time()
        self._channel = AgentChannel(session_id, wanted, faults, ORIGINS, trio.current_time())
        self._output = Damage(faults, output=True)
        self._input = Damage(faults, output=False)
        self._link: ClientLink | None = None
        self._client: ClientAbilities | None = None
        self._received: deque[DataReceived | PortDisconnected] = deque()
        self._waiting = 0
        self._cut_at = 0
        self._reason: str | None = None
        self._at_once = False
        self._asleep_until = math.inf
        self._poked = trio.Event()
        self._handshake_done = trio.Event()
        self._over = trio.Event()
        self._arrived = trio.Event()
        self._acknowledged = trio.Event()

    @property
    def link(self) -> ClientLink | None:
        """The client's WebSocket, while there is one."""
        return self._link

    @property
    def reason(self) -> str | None:
        """Why the session is over; `None` while it is not."""
        return self._reason

    def attach(self, link: ClientLink) -> ClientLink | None:
        """Send through *link* from now on; return the link that did so before."""
        before, self._link = self._link, link
        self._cut_at = self._channel.frames
        self._channel.attached = True
        self._poked.set()
        return before

    def detach(self, link: ClientLink) -> None:
        """Forget *link*, if another has not taken its place; frames wait for the next one."""
        if self._link is link:
            self._link = None
            self._channel.attached = False
            self.detached_since = trio.current_time()

    def receive_message(self, message: bytes) -> None:
        """Take in one WebSocket message from the client."""
        for frame in self._input.pass_on(message):
            self._channel.receive_message(frame, trio.current_time())
        self._cut_when_due()
        self._handle_events()
        self._acknowledged.set()
        self._post()

    def end(self, reason: str, *, at_once: bool = False) -> None:
        """End the session; clients are told *reason*. The first one stands.

        Unless it is to be *at_once*, what the port has said is delivered first, if the client is there or comes
        back within `DRAIN_TIME`.
        """
        if self._reason is None:
            self._reason = reason
            self._at_once = at_once
        self._over.set()

    async def run(self, drive: Callable[[AgentSession, ClientAbilities], Awaitable[None]]) -> str:
        """Run the session, with *drive* for its port, until it is over; return why it is."""
        async with open_background() as nursery:
            nursery.start_soon(self._watch_timers)
            async with open_background() as driving:
                driving.start_soon(self._drive, drive)
                await self._over.wait()
            with trio.move_on_after(DRAIN_TIME):
                while not self._at_once and not self._channel.drained:
                    await self._wait_acknowledged()
            return self._reason or ""

    async def _drive(self, drive: Callable[[AgentSession, ClientAbilities], Awaitable[None]]) -> None:
        await self._handshake_done.wait()
        assert self._client is not None
        await drive(self, self._client)

    # -- for the port's driver

    def accept_data(self) -> None:
        """Say that the port is up: data from the client are refused before."""
        self._channel.ready = True

    async def next_received(self) -> DataReceived | PortDisconnected:
        """Return the next bytes for the port, or that the client's connection ended."""
        while not self._received:
            self._arrived = trio.Event()
            await self._arrived.wait()
        event = self._received.popleft()
        if isinstance(event, DataReceived):
            self._waiting -= len(event.payload)
            self._channel.ready = self._waiting < MAX_WAITING
        return event

    def delivered(self, data: DataReceived) -> None:
        """Acknowledge *data*, now that the port has it."""
        self._channel.delivered(data)
        self._post()

    async def send(self, payload: bytes) -> None:
        """Send bytes from the port; waits while the client has too much unacknowledged."""
        while self._channel.unacknowledged > MAX_UNACKNOWLEDGED:
            await self._wait_acknowledged()
        self._channel.send_data(payload)
        self._post()

    def send_flag(self, flag: Flag) -> None:
        """Tell the client something about the port."""
        self._channel.send_flag(flag)
        self._post()

    # -- inside

    async def _wait_acknowledged(self) -> None:
        """Wait until something came from the client."""
        if self._acknowledged.is_set():
            self._acknowledged = trio.Event()
        await self._acknowledged.wait()

    def _handle_events(self) -> None:
        while (event := self._channel.next_event()) is not None:
            match event:
                case HandshakeDone():
                    self._client = event.client
                    self._handshake_done.set()
                case DataReceived():
                    self._received.append(event)
                    self._waiting += len(event.payload)
                    self._channel.ready = self._waiting < MAX_WAITING
                    self._arrived.set()
                case PortDisconnected():
                    self._received.append(event)
                    self._arrived.set()
                case SessionEnded():
                    self.end(event.reason, at_once=True)

    async def _watch_timers(self) -> None:
        """Resend what is overdue, and end a handshake that takes too long."""
        while True:
            self._poked = trio.Event()
            self._post()
            # What waits for a client that does not read is late, not lost.
            stuck = self._link is not None and self._link.backlog > 0
            self._asleep_until = trio.current_time() + TICK if stuck else self._channel.next_timer()
            with trio.move_on_at(self._asleep_until) as waiting:
                await self._poked.wait()
            if waiting.cancelled_caught and not stuck:
                self._channel.handle_timer(trio.current_time())
                self._handle_events()

    def _post(self) -> None:
        """Send what there is to send, as far as that goes without waiting."""
        link = self._link
        if link is None:
            return
        messages = self._channel.messages_to_send(trio.current_time())
        if not messages:
            return
        if not link.post([frame for message in messages for frame in self._output.pass_on(message)]):
            self.detach(link)
        elif self._channel.next_timer() < self._asleep_until:
            self._poked.set()
        self._cut_when_due()

    def _cut_when_due(self) -> None:
        frames = self._channel.frames
        every = self.faults.cut_after
        if self._link is not None and every and frames >= self._cut_at + every:
            self._cut_at = frames
            self._link.cut(lose=self.faults.cut_loses)


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


ORIGINS = Origins(new_id=uuid.uuid4, wall_clock=_milliseconds)
