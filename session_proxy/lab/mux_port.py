"""The agent's multiplexed port session: one smux stream per connection to the port (specification, 9.2)."""

from __future__ import annotations

from collections import deque

import attrs
import trio

from session_proxy.lab.agent import AgentSession
from session_proxy.lab.agent_channel import PortDisconnected
from session_proxy.lab.basic_port import connect_port
from session_proxy.lab.handshake import ClientAbilities
from session_proxy.lab.pace import Pace
from session_proxy.lab.smux_server import MAX_DATA, Command, SmuxError, SmuxFrame, SmuxReader
from session_proxy.protocol.ssm_frames import Flag
from tunnel_relay.background import open_background

# smux's MaxReceiveBuffer, shared by all streams: one that nobody reads stops the others.
MAX_BUFFERED = 4 * 1024 * 1024
# What waits to be cut into frames before the streams' readers stop.
MAX_OUTGOING = 256 * 1024
# smux's keepalive: a NOP so often, and the end after so long without a frame.
KEEPALIVE = 10.0
KEEPALIVE_LIMIT = 30.0


async def drive_mux(session: AgentSession, client: ClientAbilities) -> None:
    """Serve the client's smux streams until the session ends."""
    mux = _Mux(session)
    async with open_background() as nursery:
        nursery.start_soon(mux.send_outgoing)
        if client.wants_keepalive:
            nursery.start_soon(mux.keep_alive)
        session.accept_data()
        try:
            await mux.receive(nursery)
        except SmuxError as exc:
            session.end(f"Mux error: {exc}")


@attrs.define(eq=False)
class _Stream:
    """One of the client's connections: bytes for the port, and whether the client has finished."""

    id: int
    incoming: deque[bytes] = attrs.field(factory=deque[bytes], init=False)
    finished: bool = attrs.field(default=False, init=False)
    changed: trio.Event = attrs.field(factory=trio.Event, init=False)


class _Mux:
    def __init__(self, session: AgentSession) -> None:
        self._session = session
        self._reader = SmuxReader()
        self._streams: dict[int, _Stream] = {}
        self._buffered = 0
        self._consumed = trio.Event()
        self._outgoing = bytearray()
        self._filled = trio.Event()
        self._drained = trio.Event()
        self._heard = trio.current_time()

    async def receive(self, nursery: trio.Nursery) -> None:
        """Hand the client's frames to their streams; raises `SmuxError`."""
        while True:
            event = await self._session.next_received()
            if isinstance(event, PortDisconnected):
                continue
            self._heard = trio.current_time()
            for frame in self._reader.receive_data(event.payload):
                self._dispatch(frame, nursery)
            self._session.delivered(event)
            while self._buffered >= MAX_BUFFERED:
                self._consumed = trio.Event()
                await self._consumed.wait()

    def _dispatch(self, frame: SmuxFrame, nursery: trio.Nursery) -> None:
        if frame.command is Command.SYN and frame.stream not in self._streams:
            stream = self._streams[frame.stream] = _Stream(frame.stream)
            nursery.start_soon(self._run_stream, stream)
            return
        stream = self._streams.get(frame.stream)
        if stream is None:
            return  # a NOP, or data for what is closed here
        if frame.command is Command.PSH:
            stream.incoming.append(frame.data)
            self._buffered += len(frame.data)
        elif frame.command is Command.FIN:
            stream.finished = True
        stream.changed.set()

    async def _run_stream(self, stream: _Stream) -> None:
        try:
            port = await connect_port(self._session)
        except OSError:
            self._session.send_flag(Flag.CONNECT_TO_PORT_ERROR)
        else:
            over = trio.Event()
            async with port, open_background() as nursery:
                nursery.start_soon(self._pump_in, stream, port, over)
                nursery.start_soon(self._pump_out, stream, port, over)
                # Whichever direction ends first ends both: smux's streams have no half-close here.
                await over.wait()
        del self._streams[stream.id]
        self._consume(sum(map(len, stream.incoming)))
        await self._send(SmuxFrame(Command.FIN, stream.id))

    async def _pump_in(self, stream: _Stream, port: trio.SocketStream, over: trio.Event) -> None:
        try:
            while stream.incoming or not stream.finished:
                if stream.incoming:
                    data = stream.incoming.popleft()
                    self._consume(len(data))
                    await port.send_all(data)
                else:
                    stream.changed = trio.Event()
                    await stream.changed.wait()
        except trio.BrokenResourceError:
            pass  # the port is gone: that ends the stream as an EOF does
        over.set()

    async def _pump_out(self, stream: _Stream, port: trio.SocketStream, over: trio.Event) -> None:
        try:
            while data := await port.receive_some(MAX_DATA):
                await self._send(SmuxFrame(Command.PSH, stream.id, bytes(data)))
        except trio.BrokenResourceError:
            pass  # a reset ends the stream as an EOF does
        over.set()

    def _consume(self, size: int) -> None:
        self._buffered -= size
        self._consumed.set()

    async def _send(self, frame: SmuxFrame) -> None:
        while len(self._outgoing) > MAX_OUTGOING:
            if self._drained.is_set():
                self._drained = trio.Event()
            await self._drained.wait()
        self._outgoing += frame.encode()
        self._filled.set()

    async def send_outgoing(self) -> None:
        """Cut the smux bytes into frames of the data channel, at the agent's pace."""
        payload, paced = self._session.settings.frame_payload, self._session.settings.pace
        pace = Pace()
        while True:
            if not self._outgoing:
                self._filled = trio.Event()
                await self._filled.wait()
            piece = bytes(self._outgoing[:payload])
            del self._outgoing[:payload]
            self._drained.set()
            await self._session.send(piece)
            if paced:
                await pace.wait()

    async def keep_alive(self) -> None:
        """Send NOPs, and end the session when the client has been silent for too long."""
        while trio.current_time() - self._heard < KEEPALIVE_LIMIT:
            await self._send(SmuxFrame(Command.NOP, 0))
            await trio.sleep(KEEPALIVE)
        self._session.end("The client does not answer.")
