"""A command that an SSH server runs (RFC 4254, section 6): a channel, requests about it, and how it ended."""

from __future__ import annotations

from collections import deque

import attrs
import trio

from tunnel_relay.errors import ChannelOpenFailure, ChannelRefusedError, SshDisconnectedError
from tunnel_relay.protocol.ssh_fields import Fields, string, uint32
from tunnel_relay.protocol.ssh_numbers import CHANNEL_FAILURE, CHANNEL_REQUEST
from tunnel_relay.ssh.carrier import Carrier
from tunnel_relay.ssh.channel import SshChannel
from tunnel_relay.ssh.window import ReceiveWindow


@attrs.define(eq=False)
class _Request:
    answered: trio.Event = attrs.field(factory=trio.Event)
    success: bool = False


class SshCommand(SshChannel):
    """The input and output of a command. Make one with `SshSession.run_command`."""

    def __init__(self, carrier: Carrier, number: int, window: ReceiveWindow) -> None:
        super().__init__(carrier, number, window)
        self.exit_status: int | None = None
        """What it ended with, once it has; None for ever where a signal ended it, or the server did not say."""
        self._requests: deque[_Request] = deque()
        self._over = trio.Event()

    async def request_agent(self) -> None:
        """Offer our ssh-agent to the command.

        Raises:
          ChannelRefusedError: the server does not want it.
          SshDisconnectedError: the connection ended before it answered.

        """
        if not await self._request(b"auth-agent-req@openssh.com"):
            raise ChannelRefusedError(
                ChannelOpenFailure.ADMINISTRATIVELY_PROHIBITED,
                "the server does not forward agents; check AllowAgentForwarding in its sshd_config",
            )

    async def execute(self, command: str) -> None:
        """Have the server run *command*.

        Raises:
          ChannelRefusedError: it would not.
          SshDisconnectedError: the connection ended before it answered.

        """
        if not await self._request(b"exec", string(command.encode())):
            raise ChannelRefusedError(
                ChannelOpenFailure.ADMINISTRATIVELY_PROHIBITED, "the server would not run the command"
            )

    async def wait_exit(self) -> int | None:
        """Return `exit_status` when the command has ended, or the connection."""
        await self._over.wait()
        return self.exit_status

    async def _request(self, name: bytes, about: bytes = b"") -> bool:
        request = _Request()
        self._requests.append(request)
        self._carrier.send(
            bytes([CHANNEL_REQUEST]), uint32(self._standing.remote), string(name), b"\1", about
        )
        await request.answered.wait()
        if (failure := self._carrier.failure) is not None:
            raise SshDisconnectedError(str(failure)) from failure
        return request.success

    # -- what the connection calls when a message arrives

    def on_request(self, fields: Fields) -> None:
        """See `SshChannel.on_request`; the command's end is told by one."""
        self._standing.must_flow()
        name, wants_reply = fields.string(), fields.boolean()
        if name == b"exit-status":
            self.exit_status = fields.uint32()
            self._over.set()
        elif name == b"exit-signal":
            self._over.set()
        if wants_reply:
            self._carrier.send(bytes([CHANNEL_FAILURE]), uint32(self._standing.remote))

    def on_reply(self, *, success: bool) -> None:
        """See `SshChannel.on_reply`: requests are answered in order."""
        if not self._requests:
            super().on_reply(success=success)
        request = self._requests.popleft()
        request.success = success
        request.answered.set()

    def on_close(self) -> None:
        """See `SshChannel.on_close`."""
        super().on_close()
        self._end()

    def on_disconnected(self) -> None:
        """See `SshChannel.on_disconnected`."""
        super().on_disconnected()
        self._end()

    def _end(self) -> None:
        """Nothing is answered any more."""
        self._over.set()
        while self._requests:
            self._requests.popleft().answered.set()
