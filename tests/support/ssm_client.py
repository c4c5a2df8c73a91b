"""A plain Session Manager client for the lab's tests: it does what AWS's plugin does, and no more.

Written apart from our own client, so that the lab is tested by something that shares nothing with it but the
frames. It keeps its counters over reconnects, acknowledges every frame again, and resends all it has sent.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import cast

import attrs
import trio

from session_proxy.lab.control_api import Ticket
from session_proxy.protocol.ssm_frames import Flag, Frame, MalformedFrameError, MessageType, PayloadType
from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError
from tunnel_relay.websocket import WebSocket, open_websocket

RESEND = 0.1


@attrs.define(eq=False)
class PlainClient:
    """One session. *frames* are all that came, as they arrived; *closed* is channel_closed's Output."""

    version: str = "1.2.650.0"
    status: int = 1
    frames: list[Frame] = attrs.field(factory=list[Frame], init=False)
    closed: str | None = attrs.field(default=None, init=False)
    malformed: int = attrs.field(default=0, init=False)
    data: bytearray = attrs.field(factory=bytearray, init=False)
    flags: list[int] = attrs.field(factory=list[int], init=False)
    request: dict[str, object] = attrs.field(factory=dict[str, object], init=False)
    complete: dict[str, object] | None = attrs.field(default=None, init=False)
    gone: WebSocketClosedError | None = attrs.field(default=None, init=False)
    _websocket: WebSocket | None = attrs.field(default=None, init=False)
    _expected: int = attrs.field(default=0, init=False)
    _ahead: dict[int, Frame] = attrs.field(factory=dict[int, Frame], init=False)
    _next: int = attrs.field(default=0, init=False)
    _unacknowledged: dict[int, bytes] = attrs.field(factory=dict[int, bytes], init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    @asynccontextmanager
    async def connect(self, ticket: Ticket, *, token: str | None = None) -> AsyncGenerator[WebSocket]:
        """Open the data channel, and serve it for the block."""
        async with open_websocket(ticket.stream_url) as websocket, open_background() as nursery:
            hello = {
                "MessageSchemaVersion": "1.0",
                "RequestId": str(uuid.uuid4()),
                "TokenValue": ticket.token if token is None else token,
                "ClientId": str(uuid.uuid4()),
                "ClientVersion": self.version,
            }
            await websocket.send_text(json.dumps(hello))
            self._websocket = websocket
            self.gone = None
            nursery.start_soon(self._read, websocket)
            nursery.start_soon(self._resend, websocket)
            yield websocket

    async def send(self, payload: bytes, kind: int = PayloadType.OUTPUT) -> None:
        """Send one frame."""
        message = Frame(
            message_type=MessageType.INPUT_STREAM_DATA,
            message_id=uuid.uuid4(),
            created_date=1,
            sequence_number=self._next,
            payload_type=kind,
            payload=payload,
        ).encode()
        self._unacknowledged[self._next] = message
        self._next += 1
        assert self._websocket is not None
        await self._websocket.send_binary(message)

    async def send_flag(self, flag: Flag) -> None:
        """Send a flag."""
        await self.send(flag.to_payload(), PayloadType.FLAG)

    async def wait_for(self, data: bytes) -> None:
        """Wait until *data* is at the end of what came."""
        await self.wait_until(lambda: self.data.endswith(data))

    async def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait until *happened*() is true; it is asked whenever a frame came."""
        while not happened():
            if self._changed.is_set():
                self._changed = trio.Event()
            await self._changed.wait()

    async def wait_complete(self) -> None:
        """Wait for the end of the handshake."""
        await self.wait_until(lambda: self.complete is not None)

    async def wait_closed(self) -> str:
        """Wait for channel_closed, and return its Output."""
        await self.wait_until(lambda: self.closed is not None)
        assert self.closed is not None
        return self.closed

    async def wait_gone(self) -> WebSocketClosedError:
        """Wait for the end of the WebSocket, and return how it ended."""
        await self.wait_until(lambda: self.gone is not None)
        assert self.gone is not None
        return self.gone

    async def wait_acknowledged(self) -> None:
        """Wait until the agent has everything."""
        await self.wait_until(lambda: not self._unacknowledged)

    async def _read(self, websocket: WebSocket) -> None:
        try:
            while True:
                message = await websocket.receive()
                assert isinstance(message, bytes)
                await self._take(websocket, message)
                self._changed.set()
        except WebSocketClosedError as exc:
            self.gone = exc
            self._changed.set()

    async def _resend(self, websocket: WebSocket) -> None:
        try:
            while True:
                await trio.sleep(RESEND)
                for message in list(self._unacknowledged.values()):
                    await websocket.send_binary(message)
        except WebSocketClosedError:
            return

    async def _take(self, websocket: WebSocket, message: bytes) -> None:
        try:
            frame = Frame.decode(message)
        except MalformedFrameError:
            self.malformed += 1
            return
        self.frames.append(frame)
        match frame.message_type:
            case MessageType.ACKNOWLEDGE:
                content = json.loads(bytes(frame.payload))
                self._unacknowledged.pop(content["AcknowledgedMessageSequenceNumber"], None)
            case MessageType.CHANNEL_CLOSED:
                self.closed = json.loads(bytes(frame.payload))["Output"]
            case MessageType.OUTPUT_STREAM_DATA:
                await self._acknowledge(websocket, frame)
                if frame.sequence_number >= self._expected:
                    self._ahead[frame.sequence_number] = frame
                while (ready := self._ahead.pop(self._expected, None)) is not None:
                    self._expected += 1
                    await self._deliver(ready)
            case _:
                return

    async def _acknowledge(self, websocket: WebSocket, frame: Frame) -> None:
        content = {
            "AcknowledgedMessageType": frame.message_type,
            "AcknowledgedMessageId": str(frame.message_id),
            "AcknowledgedMessageSequenceNumber": frame.sequence_number,
            "IsSequentialMessage": True,
        }
        acknowledgement = Frame(
            message_type=MessageType.ACKNOWLEDGE,
            message_id=uuid.uuid4(),
            created_date=1,
            payload=json.dumps(content).encode(),
        )
        await websocket.send_binary(acknowledgement.encode())

    async def _deliver(self, frame: Frame) -> None:
        payload = bytes(frame.payload)
        match frame.payload_type:
            case PayloadType.OUTPUT:
                self.data += payload
            case PayloadType.FLAG:
                self.flags.append(int.from_bytes(payload, "big"))
            case PayloadType.HANDSHAKE_REQUEST:
                self.request = cast("dict[str, object]", json.loads(payload))
                actions = cast("list[dict[str, object]]", self.request["RequestedClientActions"])
                response = {
                    "ClientVersion": self.version,
                    "ProcessedClientActions": [
                        {
                            "ActionType": action["ActionType"],
                            "ActionStatus": self.status if action["ActionType"] == "SessionType" else 3,
                            "ActionResult": None,
                            "Error": "",
                        }
                        for action in actions
                    ],
                    "Errors": None,
                }
                await self.send(json.dumps(response).encode(), PayloadType.HANDSHAKE_RESPONSE)
            case PayloadType.HANDSHAKE_COMPLETE:
                self.complete = cast("dict[str, object]", json.loads(payload))
            case _:
                return
