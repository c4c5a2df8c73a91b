from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing

from tests.support.ssh_peer import USER, SshPeer
from tunnel_relay.errors import (
    SshAuthenticationError,
    SshDisconnectedError,
    SshError,
    SshHandshakeError,
    SshKeyError,
)
from tunnel_relay.protocol import ssh_numbers as number
from tunnel_relay.protocol.ssh_fields import name_list, string, uint32
from tunnel_relay.ssh.authentication import MAX_UNREAD
from tunnel_relay.ssh.keys import Identity, generate_identity
from tunnel_relay.ssh.session import SshSession, open_ssh_session

# As they stand in the protocol (RFC 4253, section 6.6; PROTOCOL.certkeys of OpenSSH), 1024 bits long.
SHORT = string(b"ssh-rsa") + string(b"\1\0\1") + string(b"\0" + b"\xff" * 128)
SHORT_CERTIFICATE = (
    string(b"ssh-rsa-cert-v01@openssh.com")
    + string(b"nonce")
    + string(b"\1\0\1")
    + string(b"\0" + b"\xff" * 128)
)
ONE, TWO = generate_identity("one"), generate_identity("two")
FAILURE = bytes([number.USERAUTH_FAILURE])


async def log_in(script: Callable[[SshPeer], Awaitable[None]], *identities: Identity) -> SshSession:
    near, far = trio.testing.memory_stream_pair()
    peer = SshPeer(far)

    async def serve() -> None:
        try:
            await script(peer)
        except trio.EndOfChannel:
            return

    failure: SshError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            async with open_ssh_session(
                near, user=USER, identities=identities, host_keys=peer.pinned, host="peer"
            ) as session:
                return session
        except SshError as exc:
            failure = exc
        finally:
            nursery.cancel_scope.cancel()
    assert failure is not None
    raise failure


async def next_request(peer: SshPeer) -> tuple[bool, bytes, bytes]:
    """Return whether the request is signed, its algorithm and its key."""
    fields = await peer.expect(number.USERAUTH_REQUEST)
    assert fields.string() == USER.encode()
    assert fields.string() == b"ssh-connection"
    assert fields.string() == b"publickey"
    signed = fields.boolean()
    algorithm, blob = fields.string(), fields.string()
    return signed, algorithm, blob


async def refuse(peer: SshPeer, *methods: str, partial: bool = False) -> None:
    await peer.send(FAILURE, name_list(methods), bytes([partial]))


async def accept_key(peer: SshPeer, algorithm: bytes, blob: bytes) -> None:
    await peer.send(bytes([number.USERAUTH_PK_OK]), string(algorithm), string(blob))


async def test_a_single_key_is_offered_with_its_signature() -> None:
    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        assert await next_request(peer) == (True, b"ssh-ed25519", ONE.blob)
        await peer.send(bytes([number.USERAUTH_BANNER]), string(b"Be\x1b[1m good\n"), string(b""))
        await peer.send(bytes([number.USERAUTH_SUCCESS]))

    session = await log_in(script, ONE)
    assert session.banner == "Be [1m good"


async def test_of_several_keys_only_the_one_that_is_taken_signs() -> None:
    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        assert (await next_request(peer))[0] is False
        await refuse(peer, "publickey")
        signed, algorithm, blob = await next_request(peer)
        assert (signed, blob) == (False, TWO.blob)
        await accept_key(peer, algorithm, blob)
        assert (await next_request(peer))[0] is True
        await peer.send(bytes([number.USERAUTH_SUCCESS]))

    await log_in(script, ONE, TWO)


async def test_a_server_may_want_two_keys() -> None:
    """RFC 4252, section 5.1: partial success."""

    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        for finish in (False, True):
            _, algorithm, blob = await next_request(peer)
            await accept_key(peer, algorithm, blob)
            await next_request(peer)
            if finish:
                await peer.send(bytes([number.USERAUTH_SUCCESS]))
            else:
                await refuse(peer, "publickey", partial=True)

    await log_in(script, ONE, TWO)


async def test_a_second_factor_that_we_cannot_give_is_named() -> None:
    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        await next_request(peer)
        await refuse(peer, "keyboard-interactive", partial=True)
        await peer.message()

    with pytest.raises(SshAuthenticationError, match=r"wants more than that.*one.*keyboard-interactive"):
        await log_in(script, ONE)


async def test_keys_are_not_shown_to_a_server_that_takes_none() -> None:
    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        await next_request(peer)
        await refuse(peer, "password")
        await peer.message()

    with pytest.raises(SshAuthenticationError) as caught:
        await log_in(script, ONE, TWO)
    assert "two" not in str(caught.value)
    assert "password" in str(caught.value)


async def test_a_key_that_cannot_sign_is_passed_over() -> None:
    class Broken:
        name = "broken"
        blob = ONE.blob

        async def sign(self, data: bytes, algorithm: str) -> bytes:
            del data, algorithm
            await trio.lowlevel.checkpoint()
            raise SshKeyError("the token was pulled out")

    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        await peer.message()

    with pytest.raises(SshAuthenticationError, match=r"broken .* failed: the token was pulled out"):
        await log_in(script, Broken())


async def test_a_server_that_hangs_up_is_quoted_with_the_keys() -> None:
    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        await next_request(peer)
        await peer.send(bytes([number.DISCONNECT]), uint32(2), string(b"Too many"), string(b""))

    with pytest.raises(SshAuthenticationError, match=r"Too many; .*one"):
        await log_in(script, ONE)


async def test_a_server_without_logins_is_no_server_for_us() -> None:
    async def script(peer: SshPeer) -> None:
        await peer.exchange_versions()
        await peer.expect(number.SERVICE_REQUEST)
        await refuse(peer, "publickey")

    with pytest.raises(SshHandshakeError, match="does not offer"):
        await log_in(script, ONE)


async def test_a_malformed_refusal_is_an_ssh_error() -> None:
    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        await next_request(peer)
        await peer.send(FAILURE)

    with pytest.raises(SshError, match="malformed"):
        await log_in(script, ONE)


async def test_a_flood_of_banners_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    class Slow:
        name = "slow"
        blob = ONE.blob

        async def sign(self, data: bytes, algorithm: str) -> bytes:
            await trio.sleep_forever()
            raise AssertionError(data, algorithm)

    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        for _ in range(MAX_UNREAD + 10):
            await peer.send(bytes([number.USERAUTH_BANNER]), string(b"x"), string(b""))

    near, far = trio.testing.memory_stream_pair()
    peer = SshPeer(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        with trio.move_on_after(2) as scope:
            with pytest.raises(SshDisconnectedError):
                async with open_ssh_session(
                    near, user=USER, identities=[Slow()], host_keys=peer.pinned, host="peer"
                ) as session:
                    await session.wait_closed()
        # The signature is what is waited for: that the session ended is told when it is there.
        assert scope.cancelled_caught


async def test_success_without_a_question_is_not_believed_for_long() -> None:
    """Whoever is let in without a signature is in: that is the server's decision."""

    async def script(peer: SshPeer) -> None:
        await peer.accept_service()
        await next_request(peer)
        await peer.send(bytes([number.USERAUTH_SUCCESS]))

    await log_in(script, ONE, TWO)


@attrs.frozen
class ShortKey:
    """A key of an agent's that nobody should log in with."""

    blob: bytes
    name: str = "ssh-agent: old"

    async def sign(self, data: bytes, algorithm: str) -> bytes:
        raise AssertionError("it must not be used")


@pytest.mark.parametrize("blob", [SHORT, SHORT_CERTIFICATE])
async def test_a_short_rsa_key_is_not_offered(blob: bytes) -> None:
    async def serve(peer: SshPeer) -> None:
        await peer.accept_service()
        _, _, offered = await next_request(peer)
        assert offered == ONE.blob
        await peer.send(FAILURE, name_list(["publickey"]), b"\0")

    with pytest.raises(SshAuthenticationError) as caught:
        await log_in(serve, ShortKey(blob), ONE)
    assert "ssh-agent: old" in str(caught.value)
    assert "not offered: it is an RSA key of 1024 bits; fewer than 2048 are not safe" in str(caught.value)
    assert "ssh-keygen -t ed25519" in str(caught.value)
