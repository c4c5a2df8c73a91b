"""The server's side of SSH, scripted: for what a real server would never do, and for clocks that we hold.

It negotiates with the code under test turned round (paramiko plays both roles), so it proves nothing about key
exchange by itself: real servers do, in ``test_session.py``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import attrs
import paramiko
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec

from tunnel_relay.errors import HostKeyError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import Fields, string, uint32
from tunnel_relay.ssh.hostkeys import HostKey
from tunnel_relay.ssh.keys import Identity, generate_identity
from tunnel_relay.ssh.negotiation import Negotiation
from tunnel_relay.ssh.session import SshSession, open_ssh_session
from tunnel_relay.ssh.settings import SshSettings

USER = "me"


@attrs.frozen
class PinnedHostKeys:
    """A `HostKeyPolicy` that accepts the given keys and no others, whatever the host is called."""

    keys: tuple[HostKey, ...]

    async def known_types(self, host: str) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return [key.kind for key in self.keys]

    async def verify(self, host: str, key: HostKey) -> bool:
        await trio.lowlevel.checkpoint()
        if key not in self.keys:
            raise HostKeyError(f"{host} has another key than the one expected")
        return False


class ServerNegotiation(Negotiation):
    """A `Negotiation` that plays the server."""

    def __init__(self, host_key: paramiko.PKey) -> None:
        super().__init__()
        self.server_mode = True
        self.local_version = "SSH-2.0-peer"
        self.add_server_key(host_key)


@attrs.define(eq=False)
class SshPeer:
    """A server at the other end of *stream*; what it does not do by itself, the test does."""

    stream: trio.abc.Stream
    host_key: paramiko.PKey = attrs.field(factory=lambda: paramiko.ECDSAKey.generate(ec.SECP256R1()))
    negotiation: ServerNegotiation = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.negotiation = ServerNegotiation(self.host_key)

    @property
    def pinned(self) -> PinnedHostKeys:
        return PinnedHostKeys((HostKey(self.host_key.asbytes()),))

    async def flush(self) -> None:
        taken = self.negotiation.writer.take()
        await self.stream.send_all(bytes(taken))
        self.negotiation.writer.give_back(taken)

    async def send(self, *parts: bytes) -> None:
        self.negotiation.writer.write(*parts)
        await self.flush()

    async def receive(self) -> bool:
        """Read once; false at the end of the stream."""
        space = self.negotiation.reader.space()
        data = await self.stream.receive_some(len(space))
        space[: len(data)] = data
        self.negotiation.reader.filled(len(data))
        return bool(data)

    async def exchange_versions(self) -> None:
        self.negotiation.writer.write_raw(b"SSH-2.0-peer\r\n")
        await self.flush()
        while (line := self.negotiation.reader.line(255)) is None:
            assert await self.receive()
        self.negotiation.remote_version = line.decode()
        self.negotiation.begin()
        await self.flush()

    async def message(self) -> bytes:
        """Return the next message that is not about keys."""
        while True:
            while (payload := self.negotiation.reader.packet()) is not None:
                message = bytes(payload)
                kind = message[0]
                if kind in (number.KEXINIT, number.NEWKEYS) or number.KEX_FIRST <= kind <= number.KEX_LAST:
                    self.negotiation.admit(kind)
                    self.negotiation.handle(kind, message, self.negotiation.reader.sequence - 1)
                    await self.flush()
                else:
                    return message
            if not await self.receive():
                raise trio.EndOfChannel

    async def expect(self, kind: int) -> Fields:
        """Return the fields of the next message, which must be of this kind."""
        message = await self.message()
        assert message[0] == kind, (message[0], kind)
        return Fields(message, 1)

    async def accept_service(self) -> None:
        await self.exchange_versions()
        await self.expect(number.SERVICE_REQUEST)
        await self.send(bytes([number.SERVICE_ACCEPT]), string(b"ssh-userauth"))

    async def let_in(self) -> None:
        """Do everything up to the login, which always succeeds."""
        await self.accept_service()
        await self.expect(number.USERAUTH_REQUEST)
        await self.send(bytes([number.USERAUTH_SUCCESS]))

    async def accept_channel(self, *, window: int = 1 << 20, most: int = 32768) -> int:
        """Confirm the next channel that is asked for; return the client's number for it."""
        fields = await self.expect(number.CHANNEL_OPEN)
        assert fields.string() == b"direct-tcpip"
        name = fields.uint32()
        numbers = uint32(name) + uint32(name + 100) + uint32(window) + uint32(most)
        await self.send(bytes([number.CHANNEL_OPEN_CONFIRMATION]), numbers)
        return name

    async def exchange_keys(self) -> None:
        """Ask for new keys; `message` does the rest."""
        self.negotiation.begin()
        await self.flush()

    async def send_data(self, name: int, data: bytes) -> None:
        await self.send(bytes([number.CHANNEL_DATA]), uint32(name), string(data))


@asynccontextmanager
async def open_pair(
    *,
    settings: SshSettings | None = None,
    identities: Sequence[Identity] | None = None,
) -> AsyncGenerator[tuple[SshSession, SshPeer], None]:
    """Yield a session and the peer that it is logged in to, over memory."""
    near, far = trio.testing.memory_stream_pair()
    peer = SshPeer(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.let_in)
        async with open_ssh_session(
            near,
            user=USER,
            identities=[generate_identity()] if identities is None else identities,
            host_keys=peer.pinned,
            host="peer",
            settings=settings,
        ) as session:
            yield session, peer
        nursery.cancel_scope.cancel()
