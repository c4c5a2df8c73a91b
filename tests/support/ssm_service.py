"""A Session Manager service in memory, for virtual time: WebSockets, an agent, and the control calls."""

from __future__ import annotations

import math
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from session_proxy.lab.agent_channel import AgentChannel, Origins, PortDisconnected, SessionEnded
from session_proxy.lab.agent_channel import DataReceived as PortData
from session_proxy.lab.agent_channel import HandshakeDone as AgentReady
from session_proxy.lab.documents import SSH, PortSession
from session_proxy.lab.faults import Faults
from session_proxy.protocol.ssm_frames import Flag, Frame, MessageType
from session_proxy.protocol.ssm_messages import ChannelClosed
from session_proxy.ssm import carrying
from session_proxy.ssm.session import StartedSession
from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError, WebSocketError

SESSION = StartedSession(
    "me-0123456789abcdef0", "token-0", "wss://ssm.example/v1/data-channel/me-0123456789abcdef0"
)


SSH_SESSION = PortSession(SSH, None, 22)


@attrs.define(eq=False)
class FakeWebSocket:
    """The client's end of a WebSocket, as `tunnel_relay.websocket.WebSocket` is used."""

    service: FakeService
    texts: list[str] = attrs.field(factory=list[str])
    error: WebSocketError | None = None
    silent: bool = False
    """Neither messages nor pongs come any more."""
    pauses: list[float] = attrs.field(factory=list[float])
    _inbox: deque[bytes] = attrs.field(factory=deque[bytes])
    _news: trio.Event = attrs.field(factory=trio.Event)

    def gather(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def send_text(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.texts.append(text)

    async def send_many(self, messages: Sequence[bytes]) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        if not self.silent:
            self.service.receive(messages)

    async def receive_many(self) -> list[str | bytes]:
        await trio.lowlevel.checkpoint()
        while True:
            if self._inbox and not self.silent:
                messages = list[str | bytes](self._inbox)
                self._inbox.clear()
                return messages
            if self.error is not None:
                raise self.error
            self._news = trio.Event()
            await self._news.wait()

    async def ping(self, payload: bytes | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self.service.pings += 1
        if self.silent or payload is None:
            await trio.sleep_forever()

    def put(self, messages: Sequence[bytes]) -> None:
        self._inbox.extend(messages)
        self._news.set()

    def break_off(self, error: WebSocketError | None = None) -> None:
        self.error = error or WebSocketClosedError(1006, "")
        self._news.set()


@attrs.define(eq=False)
class FakeService:
    """What the tests set: *answers* are taken one per connection; an error refuses it, `None` is a WebSocket."""

    session: PortSession = SSH_SESSION
    faults: Faults = attrs.field(factory=Faults)
    answers: deque[WebSocketError | None] = attrs.field(factory=deque["WebSocketError | None"])
    hang: bool = False
    """Connections are not answered at all."""
    connect_delay: float = 0.0
    """The agent's port is connected so long after the handshake; infinite for never."""
    resume_error: Exception | None = None
    sockets: list[FakeWebSocket] = attrs.field(factory=list[FakeWebSocket])
    attempts: list[float] = attrs.field(factory=list[float])
    resumed: list[str] = attrs.field(factory=list[str])
    terminated: list[str] = attrs.field(factory=list[str])
    received: bytearray = attrs.field(factory=bytearray)
    frames: list[Frame] = attrs.field(factory=list[Frame])
    pings: int = 0
    agent: AgentChannel = attrs.field(init=False)
    _agent_poked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _ready_at: float = attrs.field(default=math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        origins = Origins(new_id=uuid.uuid4, wall_clock=lambda: 1)
        self.agent = AgentChannel(SESSION.session_id, self.session, self.faults, origins, trio.current_time())
        self.agent.attached = True

    # -- control calls

    async def resume(self, session_id: str) -> StartedSession:
        await trio.lowlevel.checkpoint()
        self.resumed.append(session_id)
        if self.resume_error is not None:
            raise self.resume_error
        return attrs.evolve(SESSION, token=f"token-{len(self.resumed)}")

    async def terminate(self, session_id: str) -> None:
        await trio.lowlevel.checkpoint()
        self.terminated.append(session_id)

    # -- WebSockets

    @asynccontextmanager
    async def open_websocket(self, url: str, **_options: object) -> AsyncGenerator[FakeWebSocket]:
        assert url == SESSION.stream_url
        self.attempts.append(trio.current_time())
        if self.hang:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        answer = self.answers.popleft() if self.answers else None
        if answer is not None:
            raise answer
        socket = FakeWebSocket(self)
        self.sockets.append(socket)
        self._agent_poked.set()
        yield socket

    @property
    def socket(self) -> FakeWebSocket:
        return self.sockets[-1]

    async def wait_received(self, size: int) -> None:
        """Wait until the agent's port has taken *size* bytes."""
        while len(self.received) < size:  # noqa: ASYNC110  # virtual time
            await trio.sleep(0.01)

    async def wait_sockets(self, count: int) -> None:
        """Wait until so many WebSockets were opened."""
        while len(self.sockets) < count:  # noqa: ASYNC110  # virtual time
            await trio.sleep(0.1)

    def receive(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self.frames.append(Frame.decode(message))
            self.agent.receive_message(message, trio.current_time())
        self._agent_poked.set()

    # -- the agent

    def send(self, data: bytes) -> None:
        self.agent.send_data(data)
        self._agent_poked.set()

    def send_flag(self, flag: Flag) -> None:
        self.agent.send_flag(flag)
        self._agent_poked.set()

    def end_session(self, output: str = "") -> None:
        payload = ChannelClosed(session_id=SESSION.session_id, output=output).to_payload()
        frame = Frame(
            message_type=MessageType.CHANNEL_CLOSED,
            message_id=uuid.UUID(int=1),
            created_date=1,
            payload=payload,
        )
        if self.sockets:
            self.socket.put([frame.encode()])

    async def run_agent(self) -> None:
        agent = self.agent
        while True:
            self._agent_poked = trio.Event()
            now = trio.current_time()
            agent.ready = now >= self._ready_at
            agent.handle_timer(now)
            self._take_events(now)
            if self.sockets and self.socket.error is None and (messages := agent.messages_to_send(now)):
                self.socket.put(messages)
            timer = min(agent.next_timer(), self._ready_at if self._ready_at > now else math.inf)
            with trio.move_on_at(max(timer, now + 0.001)):
                await self._agent_poked.wait()

    def _take_events(self, now: float) -> None:
        while (event := self.agent.next_event()) is not None:
            match event:
                case AgentReady():
                    self._ready_at = now + self.connect_delay
                    self.agent.ready = self.connect_delay == 0
                case PortData():
                    self.received += event.payload
                    self.agent.delivered(event)
                case SessionEnded(reason):
                    self.end_session(reason)
                case PortDisconnected():
                    pass


@asynccontextmanager
async def open_service(monkeypatch: pytest.MonkeyPatch, **options: object) -> AsyncGenerator[FakeService]:
    """Put a service in the place of the network for the block."""
    service = FakeService(**options)  # pyright: ignore[reportArgumentType]  # the class's own fields
    monkeypatch.setattr(carrying, "open_websocket", service.open_websocket)
    async with open_background() as nursery:
        nursery.start_soon(service.run_agent)
        yield service
