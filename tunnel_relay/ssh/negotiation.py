"""paramiko's key exchange, one message at a time. The seam: what is private in paramiko is used here only.

`paramiko.Transport` is a thread that owns a socket, an SSH connection in every respect. Of it we take the
negotiation of algorithms, the key exchange methods, the derivation of keys and the verification of the host's
signature; its thread is never started, and it has no socket. Packets, dispatch, authentication and channels are
ours. ``tests/tunnel_relay/ssh/test_negotiation.py`` fails where a new paramiko moves the seam.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, ClassVar, cast

import paramiko
from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.exceptions import CryptoError
from paramiko.kex_curve25519 import KexCurve25519
from paramiko.packet import Packetizer
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import IncompatiblePeer

from tunnel_relay.errors import HostKeyError, SshHandshakeError
from tunnel_relay.protocol.ssh_numbers import DEBUG, IGNORE, KEX_FIRST, KEX_LAST, KEXINIT, NEWKEYS
from tunnel_relay.ssh.algorithms import CIPHERS, HOST_KEYS, KEY_EXCHANGES, MACS, Offer, explain_mismatch
from tunnel_relay.ssh.ciphers import EtmPackets, GcmPackets, Mac, MacPackets, PacketCipher
from tunnel_relay.ssh.compression import Compressor, Decompressor
from tunnel_relay.ssh.packets import MAX_PACKET, PacketReader, PacketWriter

# Begun by the success of the login (draft-miller-secsh-compression-delayed).
COMPRESSION = "zlib@openssh.com"

LOCAL_VERSION = "SSH-2.0-tunnel_relay"

# What paramiko and the libraries below it let out when a peer sends them nonsense.
_PEER_ERRORS = (
    paramiko.SSHException,
    UnknownKeyType,
    CryptoError,
    InvalidKey,
    UnsupportedAlgorithm,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
)


class _NoSocket:
    """Stands where paramiko wants a socket; it sets a time limit, and that is all it does with it."""

    def settimeout(self, seconds: float | None) -> None:
        del seconds

    def close(self) -> None:
        pass


class _PacketSeam(Packetizer):
    """What paramiko's Transport sees of our packets. The inherited constructor is not run: it makes locks."""

    _initial_kex_done = False

    def __init__(self, socket: object) -> None:
        del socket
        self.reader = PacketReader()
        self.writer = PacketWriter()

    def set_log(self, log: object) -> None:
        del log

    def send_message(self, data: paramiko.Message) -> None:
        self.writer.write(data.asbytes())

    def need_rekey(self) -> bool:
        # When to exchange keys again is the session's decision.
        return False

    def reset_seqno_out(self) -> None:
        self.writer.sequence = 0

    def reset_seqno_in(self) -> None:
        # paramiko resets while it handles NEWKEYS: the next packet is number 0.
        self.reader.sequence = 0

    def set_outbound_cipher(
        self,
        block_engine: object,
        block_size: int,
        mac_engine: object,
        mac_size: int,
        mac_key: bytes | bytearray | None,
        sdctr: bool = False,
        etm: bool = False,
        aead: bool = False,
        iv_out: bytes | None = None,
    ) -> None:
        del block_size, sdctr, aead
        self.writer.cipher = _cipher(block_engine, mac_engine, mac_size, mac_key, iv_out, etm=etm)
        self.writer.sealed_bytes = 0

    def set_inbound_cipher(
        self,
        block_engine: object,
        block_size: int,
        mac_engine: object,
        mac_size: int,
        mac_key: bytes | bytearray | None,
        etm: bool = False,
        aead: bool = False,
        iv_in: bytes | None = None,
    ) -> None:
        del block_size, aead
        self.reader.cipher = _cipher(block_engine, mac_engine, mac_size, mac_key, iv_in, etm=etm)
        self.reader.opened_bytes = 0

    def set_outbound_compressor(self, compressor: object) -> None:
        # paramiko's own flushes more than is needed, and knows no bound.
        del compressor
        self.writer.compressor = Compressor()

    def set_inbound_compressor(self, compressor: object) -> None:
        del compressor
        self.reader.decompressor = Decompressor(MAX_PACKET)


def _cipher(
    engine: object,
    digest: object,
    mac_size: int,
    mac_key: bytes | bytearray | None,
    nonce: bytes | None,
    *,
    etm: bool,
) -> PacketCipher:
    if isinstance(engine, AESGCM):
        assert nonce is not None
        return GcmPackets(engine, nonce)
    assert isinstance(engine, CipherContext)
    assert callable(digest)
    assert mac_key is not None
    # paramiko names a hash by hashlib's constructor of it.
    mac = Mac(bytes(mac_key), str(getattr(digest(), "name")), mac_size)  # noqa: B009
    return EtmPackets(engine, mac) if etm else MacPackets(engine, mac)


# RFC 8731's name is added for what paramiko only knows by its older one.
_KEX_INFO = {
    **cast("dict[str, object]", vars(paramiko.Transport)["_kex_info"]),
    "curve25519-sha256": KexCurve25519,
}

if TYPE_CHECKING:

    class _Transport(paramiko.Transport):
        """Exactly what we use of paramiko that it does not promise."""

        agreed_on_strict_kex: bool
        _expected_packet: tuple[int, ...]

        def _expect_packet(self, *ptypes: int) -> None: ...
        def _send_kex_init(self) -> None: ...
        def _negotiate_keys(self, m: paramiko.Message) -> None: ...
        def _parse_newkeys(self, m: paramiko.Message) -> None: ...
        def _verify_key(self, host_key: bytes, sig: bytes) -> None: ...
        def _auth_trigger(self) -> None: ...

else:
    _Transport = paramiko.Transport


class Negotiation(_Transport):
    """Agrees on algorithms and keys, the first time and again; sets them on `reader` and `writer`.

    It answers into the writer.
    """

    _kex_info: ClassVar[dict[str, object]] = _KEX_INFO
    # ML-KEM is missing where the cryptography library has none.
    _preferred_kex: ClassVar[tuple[str, ...]] = tuple(name for name in KEY_EXCHANGES if name in _KEX_INFO)
    _preferred_ciphers: ClassVar[tuple[str, ...]] = CIPHERS
    _preferred_macs: ClassVar[tuple[str, ...]] = MACS

    def __init__(self, host_keys: tuple[str, ...] = HOST_KEYS, *, compression: bool = False) -> None:
        super().__init__(cast("paramiko.Channel", _NoSocket()), packetizer_class=_PacketSeam)
        if compression:
            # Not before the login, where a peer whom nobody knows could make us decompress what it likes.
            self._preferred_compression = (COMPRESSION, "none")
        self.local_version = LOCAL_VERSION
        self.kex_name = ""
        self._preferred_keys = host_keys
        self._first_host_key: bytes | None = None
        # Whether the next packet of the key exchange is meant for methods that were not agreed on.
        self._guessed_wrong = False
        seam = cast("_PacketSeam", self.packetizer)
        self.reader = seam.reader
        self.writer = seam.writer

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The host key algorithms; no certificates, which paramiko cannot verify."""
        return self._preferred_keys

    @property
    def host_key_blob(self) -> bytes:
        """The host's public key, its signature verified (RFC 4253, section 6.6); empty before that."""
        return self._first_host_key or b""

    @property
    def running(self) -> bool:
        """Whether a key exchange is under way: nothing but its messages may be sent."""
        return not self.clear_to_send.is_set()

    @property
    def strict(self) -> bool:
        """Whether both sides count packets from zero under new keys, which defeats Terrapin (CVE-2023-48795)."""
        return self.agreed_on_strict_kex

    @property
    def compressing(self) -> bool:
        """Whether what we send is compressed, once we are logged in."""
        return self.local_compression == COMPRESSION

    def logged_in(self) -> None:
        """Compress from now on, where that was agreed on, and anew with all keys that follow."""
        self._auth_trigger()

    def begin(self) -> None:
        """Ask for a key exchange; the first one once the peer's version is known."""
        self._send_kex_init()
        if not self.initial_kex_done:
            self._expect_packet(KEXINIT)

    def admit(self, number: int) -> None:
        """Check that a message with this *number* may come now.

        Raises:
          SshHandshakeError: a key exchange is under way, and this is no part of it.

        """
        if number in (IGNORE, DEBUG):
            if self.agreed_on_strict_kex and not self.initial_kex_done:
                raise SshHandshakeError("the server sent a message that strict key exchange forbids")
        elif self._guessed_wrong and KEX_FIRST <= number <= KEX_LAST:
            return
        elif self._expected_packet and number not in self._expected_packet:
            raise SshHandshakeError(f"the server sent message {number} in the middle of a key exchange")

    def handle(self, number: int, payload: bytes, sequence: int) -> None:
        """Go on with the key exchange by one message that has been admitted.

        Raises:
          SshHandshakeError: no agreement is possible, or the message is wrong.
          HostKeyError: the host's signature is wrong, or its key changed within the connection.

        """
        if self._guessed_wrong and number != KEXINIT:
            # RFC 4253, section 7: silently ignored, once.
            self._guessed_wrong = False
            return
        message = paramiko.Message(payload[1:])
        message.seqno = sequence
        self._expected_packet = ()
        try:
            if number == KEXINIT:
                self._agree(payload)
                self._negotiate_keys(message)
            elif number == NEWKEYS:
                if self.kex_engine is None:
                    raise SshHandshakeError("the server switched to keys that were never agreed on")
                self._parse_newkeys(message)
            else:
                engine = self.kex_engine
                if engine is None:
                    raise SshHandshakeError("the server answered a key exchange that is not under way")
                engine.parse_next(number, message)
        except IncompatiblePeer as exc:
            raise SshHandshakeError(explain_mismatch(payload, self._preferred_keys)) from exc
        except _PEER_ERRORS as exc:
            raise SshHandshakeError(f"the key exchange failed: {exc}") from exc

    def _agree(self, payload: bytes) -> None:
        # paramiko does not keep the name of the method that it chooses: ours that the peer has too.
        offer = Offer.of(payload)
        self.kex_name = next((name for name in self._preferred_kex if name in offer.key_exchanges), "")
        firsts = (offer.key_exchanges[:1], offer.host_keys[:1])
        self._guessed_wrong = offer.guesses and firsts != (self._preferred_kex[:1], self._preferred_keys[:1])

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        # Called by every key exchange method before keys are derived; checks the signature.
        super()._verify_key(host_key, sig)
        if self._first_host_key is None:
            self._first_host_key = host_key
        elif host_key != self._first_host_key:
            raise HostKeyError("the host changed its key within the connection")
