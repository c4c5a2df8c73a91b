"""The agent's plain port session: the session's bytes are one TCP connection's.

``AWS-StartSSHSession`` is always one, and ends with its connection; port forwarding is one where the client is
too old for smux, and then connects anew for each of the client's connections (specification, 9.1 and 9.3).
"""

from __future__ import annotations

import trio

from session_proxy.lab.agent import CONNECT_TIME, AgentSession
from session_proxy.lab.agent_channel import DataReceived, PortDisconnected
from session_proxy.lab.pace import Pace
from session_proxy.protocol.ssm_frames import Flag
from tunnel_relay.background import open_background

READ_SIZE = 64 * 1024


async def connect_port(session: AgentSession) -> trio.SocketStream:
    """Connect to the session's port as the agent would; raises `OSError`."""
    await trio.sleep(session.faults.connect_delay)
    if session.faults.connect_fails:
        raise ConnectionRefusedError("the lab was told to fail")
    host = session.wanted.host or session.settings.host
    with trio.move_on_after(CONNECT_TIME):
        return await trio.open_tcp_stream(host, session.wanted.port)
    raise TimeoutError(f"{host} does not answer")


async def drive_basic(session: AgentSession) -> None:
    """Carry bytes between the session and its port, until the session ends."""
    first: DataReceived | None = None
    while True:
        try:
            stream = await connect_port(session)
        except OSError as exc:
            await _fail(session, exc)
            return
        session.accept_data()
        async with stream:
            await _carry(session, stream, first)
        if not session.wanted.forwards_ports:
            # There is no half-close: whichever side of sshd's connection ended, the session is over.
            session.end("")
            return
        first = await _next_data(session)


async def _next_data(session: AgentSession) -> DataReceived:
    while True:
        event = await session.next_received()
        if isinstance(event, DataReceived):
            return event
        # The client's connection has ended; its next one begins with data.


async def _carry(session: AgentSession, stream: trio.SocketStream, first: DataReceived | None) -> None:
    over = trio.Event()
    async with open_background() as nursery:
        nursery.start_soon(_pump_out, session, stream, over)
        nursery.start_soon(_pump_in, session, stream, first, over)
        await over.wait()


async def _pump_out(session: AgentSession, stream: trio.SocketStream, over: trio.Event) -> None:
    payload, paced = session.settings.frame_payload, session.settings.pace
    pace = Pace()
    try:
        while data := await stream.receive_some(READ_SIZE):
            # AWS's agent reads no more than a frame's worth; reading more at a time only spares us wake-ups.
            for start in range(0, len(data), payload):
                await session.send(bytes(data[start : start + payload]))
                if paced:
                    await pace.wait()
    except trio.BrokenResourceError:
        pass  # a reset ends the connection as an EOF does
    over.set()


async def _pump_in(
    session: AgentSession, stream: trio.SocketStream, first: DataReceived | None, over: trio.Event
) -> None:
    event: DataReceived | PortDisconnected = first or await session.next_received()
    try:
        while isinstance(event, DataReceived):
            await stream.send_all(event.payload)
            session.delivered(event)
            event = await session.next_received()
    except trio.BrokenResourceError:
        pass  # not acknowledged: AWS's agent says nothing either
    over.set()


async def _fail(session: AgentSession, exc: OSError) -> None:
    if session.wanted.forwards_ports:
        session.send_flag(Flag.CONNECT_TO_PORT_ERROR)
    else:
        # The session's worker dies here, and the agent takes a minute to notice (specification, 9.1).
        await trio.sleep(session.faults.crash_notice)
    session.end(f"Unable to connect to specified port: {exc}")
