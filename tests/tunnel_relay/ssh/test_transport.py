from __future__ import annotations

import paramiko
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ssh_peer import ServerNegotiation
from tunnel_relay.errors import SshDisconnectedError, SshError, SshHandshakeError
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import string, uint32
from tunnel_relay.ssh.transport import MAX_HELD, MAX_LINES, SshTransport


async def offer(data: bytes, *, end: bool = True, piece: int = 1 << 16) -> SshTransport:
    """Let a transport receive *data* in pieces, and then the end of the stream."""
    await trio.lowlevel.checkpoint()
    transport = SshTransport(1 << 30)
    for start in range(0, len(data), piece):
        part = data[start : start + piece]
        transport.reader.space()[: len(part)] = part
        transport.received(len(part))
    if end:
        transport.received(0)
    return transport


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_a_version_may_follow_lines_for_people(piece: int) -> None:
    """RFC 4253, section 4.2."""
    transport = await offer(b"Welcome!\r\n\r\nSSH-2.0-x y\r\n", end=False, piece=piece)
    assert transport.negotiation.remote_version == "SSH-2.0-x y"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", "before it said anything"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak SSH.*HTTP/1.1 400"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not speak SSH"),
        (b"Not allowed at this time\n", "Not allowed at this time"),
        (b"SSH-1.5-old\n", "another SSH"),
        (b"SSH-2.0-\xff\xfe\n", "not text"),
        (b"x" * 10_000, "never ends"),
        (b"line\n" * (MAX_LINES + 1), "does not speak SSH"),
        (b"SSH-2.0-x\r\n", "closed the connection"),
        (b"SSH-2.0-x\r\n" + bytes(100), "bytes long"),
    ],
)
async def test_what_is_no_ssh_server_is_told_apart(said: bytes, error: str) -> None:
    with pytest.raises(SshError, match=error) as caught:
        await offer(said)
    assert "\n" not in str(caught.value)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_an_ssh_error(garbage: bytes, versioned: bool) -> None:
    async def main() -> None:
        with pytest.raises(SshError):
            await offer(b"SSH-2.0-x\r\n" * versioned + garbage)

    trio.run(main)


class Pair:
    """A transport that has agreed on keys with a peer; *carry* moves what both have written."""

    def __init__(self) -> None:
        self.transport = SshTransport(1 << 30)
        self.peer = ServerNegotiation(paramiko.ECDSAKey.generate(ec.SECP256R1()))
        self.messages: list[bytes] = []
        self.peer.writer.write_raw(b"SSH-2.0-peer\r\n")
        taken = self.transport.writer.take()
        self.peer.remote_version = bytes(taken).decode().strip()
        self.peer.begin()
        for _ in range(6):
            self.carry()

    def carry(self) -> None:
        self._to_transport()
        taken = self.transport.writer.take()
        self.peer.reader.space()[: len(taken)] = taken
        self.peer.reader.filled(len(taken))
        self.transport.writer.give_back(taken)
        while (payload := self.peer.reader.packet()) is not None:
            message = bytes(payload)
            if message[0] in (number.KEXINIT, number.NEWKEYS) or 30 <= message[0] < 50:
                self.peer.admit(message[0])
                self.peer.handle(message[0], message, self.peer.reader.sequence - 1)
            else:
                self.messages.append(message)

    def _to_transport(self) -> None:
        taken = self.peer.writer.take()
        self.transport.reader.space()[: len(taken)] = taken
        size = len(taken)
        self.peer.writer.give_back(taken)
        if size:
            self.transport.received(size)

    def say(self, *parts: bytes) -> None:
        self.peer.writer.write(*parts)
        self.carry()


async def test_keys_are_agreed_on() -> None:
    pair = Pair()
    assert pair.transport.keys_agreed.is_set()
    assert not pair.transport.exchanging_keys
    assert pair.transport.key_exchanges == 1
    assert pair.transport.signature_algorithms[0] == "ssh-ed25519"


async def test_messages_wait_for_a_key_exchange_and_keep_their_order() -> None:
    pair = Pair()
    pair.transport.send(b"\x50before")
    pair.transport.exchange_keys()
    for text in (b"\x50one", b"\x50two"):
        pair.transport.send(text)
    pair.carry()
    assert pair.messages == [b"\x50before"]
    for _ in range(4):
        pair.carry()
    assert pair.messages == [b"\x50before", b"\x50one", b"\x50two"]
    assert pair.transport.key_exchanges == 2


async def test_keys_are_exchanged_after_so_many_bytes() -> None:
    pair = Pair()
    pair.transport._rekey_bytes = 1000
    pair.transport.send(b"\x50" + bytes(2000))
    assert pair.transport.exchanging_keys
    for _ in range(4):
        pair.carry()
    assert pair.transport.key_exchanges == 2
    pair.say(bytes([number.IGNORE]), string(bytes(2000)))
    for _ in range(4):
        pair.carry()
    assert pair.transport.key_exchanges == 3


async def test_a_server_that_never_finishes_cannot_make_us_collect_messages() -> None:
    pair = Pair()
    pair.transport.exchange_keys()
    for _ in range(MAX_HELD + 1):
        pair.transport.send(b"\x50x")
    with pytest.raises(SshDisconnectedError, match="key exchange"):
        pair.transport.check()
    pair.transport.send(b"\x50ignored")


async def test_an_unknown_message_is_answered_as_such() -> None:
    pair = Pair()
    pair.say(b"\xc8what?")
    pair.carry()
    assert pair.messages == [bytes([number.UNIMPLEMENTED]) + uint32(pair.transport.reader.sequence - 1)]


async def test_idle_talk_is_passed_over() -> None:
    pair = Pair()
    for kind in (number.IGNORE, number.DEBUG, number.UNIMPLEMENTED):
        pair.say(bytes([kind]), string(b"x"))
    pair.carry()
    assert pair.messages == []


async def test_a_farewell_is_quoted_without_its_control_characters() -> None:
    pair = Pair()
    with pytest.raises(SshDisconnectedError, match=r"ended the connection: go \[0m away"):
        pair.say(bytes([number.DISCONNECT]), uint32(2), string(b"go \x1b[0m\naway"), string(b""))
    pair = Pair()
    with pytest.raises(SshDisconnectedError, match="reason 11"):
        pair.say(bytes([number.DISCONNECT]), uint32(11), string(b""), string(b""))


async def test_a_malformed_message_ends_the_connection() -> None:
    pair = Pair()
    with pytest.raises(SshDisconnectedError, match="malformed"):
        pair.say(bytes([number.DISCONNECT, 0]))


async def test_too_many_messages_before_the_keys_are_refused() -> None:
    transport = SshTransport(1 << 30)
    peer = ServerNegotiation(paramiko.ECDSAKey.generate(ec.SECP256R1()))
    vars(peer)["advertise_strict_kex"] = False
    peer.writer.write_raw(b"SSH-2.0-peer\r\n")
    for _ in range(200):
        peer.writer.write(bytes([number.IGNORE]), string(b""))
    taken = peer.writer.take()
    transport.reader.space()[: len(taken)] = taken
    with pytest.raises(SshHandshakeError, match="does not finish"):
        transport.received(len(taken))


async def test_the_first_reason_for_an_end_stands() -> None:
    transport = SshTransport(1 << 30)
    ends: list[str] = []
    transport.on_end.append(lambda: ends.append("end"))
    transport.check()
    transport.fail(SshDisconnectedError("one"))
    transport.fail(SshDisconnectedError("two"))
    assert ends == ["end"]
    assert transport.ended.is_set()
    with pytest.raises(SshDisconnectedError, match="one"):
        transport.check()


async def test_a_goodbye_is_said_unless_keys_are_exchanged() -> None:
    pair = Pair()
    pair.transport.disconnect()
    pair.carry()
    assert pair.messages[0][:5] == bytes([number.DISCONNECT]) + uint32(11)
    pair.transport.exchange_keys()
    pair.transport.disconnect()
    assert len(pair.messages) == 1
