"""The message gateway (MGS): it starts sessions, and joins clients' WebSockets to the agents' ends of them.

A session outlives its WebSocket: ResumeSession gives a new token, with which the client comes back. Nothing is
replayed here; the peers resend.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Self, cast

import trio

from session_proxy.lab.agent import ORIGINS, AgentSession, AgentSettings
from session_proxy.lab.client_link import ClientLink, FrailStream, LinkClosedError, RateMeter
from session_proxy.lab.control_api import Ticket, UnknownSessionError
from session_proxy.lab.documents import PortSession
from session_proxy.lab.faults import Faults
from session_proxy.lab.http import HttpConnection, Request
from session_proxy.lab.instances import LabInstance
from session_proxy.lab.port import drive_port
from session_proxy.lab.websocket_frames import WebSocketProtocolError, render_upgrade
from session_proxy.protocol.ssm_frames import (
    HEADER_LENGTH,
    SERVICE_HEADER_LENGTH,
    UNSEQUENCED_FLAGS,
    Frame,
    MessageType,
)
from tunnel_relay.background import open_background

DATA_CHANNEL = "/v1/data-channel/"
# How long a client may take to say who it is; the plugin says it at once.
OPEN_TIME = 15.0
# A session without a client ends: AWS's default idle timeout.
IDLE_TIME = 20 * 60.0
# How long a client is left to react to channel_closed before its WebSocket is closed.
PARTING_TIME = 1.0
# RFC 6455, section 7.4.1.
NORMAL = 1000
GOING_AWAY = 1001
UNSUPPORTED_DATA = 1003


class Gateway:
    """All sessions of a lab. Open it with `Gateway.open`; *url* is where clients are sent (``ws://HOST:PORT``)."""

    def __init__(self, nursery: trio.Nursery, settings: AgentSettings, faults: Faults) -> None:
        self.url = ""
        self.sessions: dict[str, AgentSession] = {}
        self._nursery = nursery
        self._settings = settings
        self._faults = faults

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: AgentSettings, faults: Faults) -> AsyncGenerator[Self]:
        """Run sessions for as long as the block lasts."""
        async with open_background() as nursery:
            yield cls(nursery, settings, faults)

    # -- control calls

    def start_session(self, instance: LabInstance, wanted: PortSession) -> Ticket:
        """Have the instance's agent begin a session, whether or not a client comes."""
        session_id = f"lab-{secrets.token_hex(9)[:17]}"
        session = AgentSession(session_id, instance.id, wanted, self._settings, self._faults)
        self.sessions[session_id] = session
        self._nursery.start_soon(self._run, session)
        return self._ticket(session)

    def resume_session(self, session_id: str) -> Ticket:
        """Return a new token; raises `UnknownSessionError`."""
        session = self.sessions.get(session_id)
        if session is None:
            raise UnknownSessionError
        return self._ticket(session)

    def terminate_session(self, session_id: str) -> None:
        """End the session, if it has not ended; from now on nobody knows it."""
        session = self.sessions.pop(session_id, None)
        if session is not None:
            session.end("", at_once=True)

    def _ticket(self, session: AgentSession) -> Ticket:
        session.token = secrets.token_urlsafe(96)
        url = f"{self.url}{DATA_CHANNEL}{session.id}?role=publish_subscribe"
        return Ticket(session.id, session.token, url)

    # -- what tests and faults do

    def cut_websockets(self, *, lose: int = 0) -> int:
        """Cut every client's WebSocket; see `World.cut_websockets`."""
        links = self._links()
        for link in links:
            link.cut(lose=lose)
        return len(links)

    def close_websockets(self) -> int:
        """Close every client's WebSocket by the book; the sessions stay."""
        links = self._links()
        for link in links:
            link.close(GOING_AWAY)
        return len(links)

    def end_sessions(self, reason: str = "") -> int:
        """End every session; clients are told *reason*."""
        sessions = [session for session in self.sessions.values() if session.reason is None]
        for session in sessions:
            session.end(reason, at_once=True)
        return len(sessions)

    def _links(self) -> list[ClientLink]:
        return [session.link for session in self.sessions.values() if session.link is not None]

    # -- sessions and clients

    async def _run(self, session: AgentSession) -> None:
        async with open_background() as nursery:
            nursery.start_soon(_end_when_idle, session)
            reason = await session.run(drive_port)
        # From here on the session cannot be resumed, and whoever comes is told so.
        self.sessions.pop(session.id, None)
        link = session.link
        if link is not None and link.post([self._channel_closed(session, reason)]):
            await trio.sleep(PARTING_TIME)
            link.close(NORMAL)

    def _channel_closed(self, session: AgentSession, reason: str) -> bytes:
        message_id = ORIGINS.new_id()
        created = ORIGINS.wall_clock()
        content = {
            "MessageId": str(message_id),
            # Text here, unlike everywhere else (specification, section 4).
            "CreatedDate": str(created),
            "DestinationId": session.instance,
            "SessionId": session.id,
            "MessageType": MessageType.CHANNEL_CLOSED,
            "SchemaVersion": 1,
            "Output": reason,
        }
        return Frame(
            message_type=MessageType.CHANNEL_CLOSED,
            message_id=message_id,
            created_date=created,
            flags=UNSEQUENCED_FLAGS,
            payload=json.dumps(content, separators=(",", ":")).encode(),
            header_length=HEADER_LENGTH if self._faults.closed_116 else SERVICE_HEADER_LENGTH,
        ).encode()

    async def serve_client(self, connection: HttpConnection, request: Request) -> None:
        """Serve the WebSocket that *request* asks for, until it ends; raises `LabHttpError`."""
        frail = FrailStream(connection.stream, self._faults)
        try:
            await connection.switch_protocols(render_upgrade(request.headers))
        except WebSocketProtocolError:
            await connection.respond(400)
            return
        link = ClientLink(frail, connection.trailing_data)
        try:
            session = self._find(request.path)
            token = await _receive_token(link)
            if session is not None and secrets.compare_digest(token, session.token):
                await self._serve_session(session, link)
            else:
                channel = request.path.removeprefix(DATA_CHANNEL).partition("?")[0]
                missing = f"Channel {channel}: request to open data channel does not contain token."
                await link.finish(UNSUPPORTED_DATA, missing)
        except LinkClosedError:
            return
        finally:
            # Whoever still wants to send through it learns that it is gone.
            frail.cut = True

    def _find(self, path: str) -> AgentSession | None:
        name, _, _ = path.removeprefix(DATA_CHANNEL).partition("?")
        return self.sessions.get(name) if path.startswith(DATA_CHANNEL) else None

    async def _serve_session(self, session: AgentSession, link: ClientLink) -> None:
        if self._faults.pause_first:
            for kind in (MessageType.PAUSE_PUBLICATION, MessageType.START_PUBLICATION):
                link.post([_empty(kind)])
        rate = RateMeter()

        def receive(message: bytes) -> None:
            limit = self._faults.rate_limit
            if limit and rate.count(trio.current_time()) > limit:
                link.cut()
            else:
                session.receive_message(message)

        before = session.attach(link)
        if before is not None:
            before.cut()
        try:
            async with open_background() as nursery:
                if self._faults.close_after:
                    nursery.start_soon(_close_after, link, self._faults.close_after)
                await link.serve(receive)
        finally:
            session.detach(link)


async def _end_when_idle(session: AgentSession) -> None:
    while True:
        idle = 0.0 if session.link else trio.current_time() - session.detached_since
        if idle >= IDLE_TIME:
            session.end("Your session timed out due to inactivity.")
        await trio.sleep(max(1.0, IDLE_TIME - idle))


async def _close_after(link: ClientLink, seconds: float) -> None:
    await trio.sleep(seconds)
    link.close(GOING_AWAY)


async def _receive_token(link: ClientLink) -> str:
    """Return the token of the client's first message, "" where it holds none; raises `LinkClosedError`."""
    with trio.move_on_after(OPEN_TIME):
        first = await link.receive()
        try:
            content = json.loads(first)
        except ValueError:
            return ""
        token = cast("Mapping[str, object]", content).get("TokenValue") if isinstance(content, dict) else ""
        return token if isinstance(token, str) and token.isascii() else ""
    return ""


def _empty(kind: MessageType) -> bytes:
    """Return a frame without a payload, which only the service makes (specification, section 3.2)."""
    frame = Frame(
        message_type=kind, message_id=uuid.uuid4(), created_date=ORIGINS.wall_clock(), payload=b"\0"
    )
    return frame.encode()[:-1]
