"""Lends our ssh-agent to what runs on a server (OpenSSH's PROTOCOL.agent): its keys may be seen and used, no more.

async with open_agent_forwarding(session, socket):
    command = await session.run_command("git pull", forward_agent=True)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from tunnel_relay.background import open_background
from tunnel_relay.errors import SshKeyError
from tunnel_relay.protocol.ssh_agent_gate import AgentGate
from tunnel_relay.protocol.ssh_agent_messages import LENGTH, failure, framed, message_length
from tunnel_relay.protocol.ssh_fields import FieldError
from tunnel_relay.ssh.agent import ask_agent
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.session import SshSession

# Conversations with the agent at a time; a program needs one. Those beyond are closed at once.
MOST_CHANNELS = 16


@asynccontextmanager
async def open_agent_forwarding(
    session: SshSession, socket: Path, gate: AgentGate | None = None
) -> AsyncGenerator[None]:
    """Lend the agent that listens on *socket*, as far as *gate* allows, for the length of a block.

    Only commands that were run with ``forward_agent=True`` get at it.
    """
    async with open_background() as nursery:
        lending = _Lending(nursery, socket, gate or AgentGate())
        session.on_agent(lending.take)
        try:
            yield
        finally:
            session.on_agent(None)


@attrs.define(eq=False)
class _Lending:
    nursery: trio.Nursery
    socket: Path
    gate: AgentGate
    _channels: int = attrs.field(default=0, init=False)

    def take(self, channel: SshChannel) -> None:
        if self._channels >= MOST_CHANNELS:
            channel.close()
            return
        self._channels += 1
        self.nursery.start_soon(self._serve, channel)

    async def _serve(self, channel: SshChannel) -> None:
        try:
            async with channel:
                while (request := await _receive_message(channel)) is not None:
                    await channel.send_all(framed(await self._answer(request)))
        except (trio.BrokenResourceError, FieldError):
            # What talks nonsense is not talked to; who is gone needs no answer.
            pass
        finally:
            self._channels -= 1

    async def _answer(self, request: bytes) -> bytes:
        if not self.gate.admits(request):
            return failure()
        try:
            return self.gate.answer(request, await ask_agent(self.socket, request))
        except SshKeyError:
            return failure()


async def _receive_message(stream: trio.abc.ReceiveStream) -> bytes | None:
    """Return the next message without its length; None at the end."""
    head = await _receive_up_to(stream, LENGTH)
    if not head:
        return None
    length = message_length(head)
    message = await _receive_up_to(stream, length)
    if len(head) < LENGTH or len(message) < length:
        raise FieldError("a message to the agent is cut off")
    return message


async def _receive_up_to(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            break
        data += more
    return bytes(data)
