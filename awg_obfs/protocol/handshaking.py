"""Handshakes as a device holds them: who may have one, when, and what it costs.

Nothing is answered that was not made for our public key (MAC1). Under load nothing is worked on whose sender has not
proven its address (MAC2). Only then comes the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from awg_obfs.events import (
    CookieReceived,
    CookieSent,
    HandshakeAnswered,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeFault,
    HandshakeSent,
    PeerMoved,
    Rejection,
    UnderLoad,
)
from awg_obfs.protocol.address import Address, network_bytes
from awg_obfs.protocol.cookies import MacVerifier
from awg_obfs.protocol.indices import IndexTable
from awg_obfs.protocol.junk import decoys
from awg_obfs.protocol.keypairs import Keypair
from awg_obfs.protocol.load import LoadGauge, SenderLimits
from awg_obfs.protocol.messages import CookieReply, Initiation, Response
from awg_obfs.protocol.mismatch import PRESHARED_KEYS_DIFFER
from awg_obfs.protocol.noise import KEY_LENGTH, NoiseError, PrivateKey, Role, open_initiation
from awg_obfs.protocol.outbox import Outbox
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.randomness import Randomness
from awg_obfs.protocol.sizes import INITIATION_LENGTH, RESPONSE_LENGTH
from awg_obfs.protocol.tai64n import later_stamp, stamp
from awg_obfs.protocol.timers import INITIATION_INTERVAL, REKEY_TIMEOUT


@attrs.define(eq=False)
class Handshaker:
    """Makes, answers and ends handshakes. *peers* are found by their public keys."""

    identity: PrivateKey = attrs.field(repr=False)
    parameters: Parameters
    random: Randomness = attrs.field(repr=False)
    unix_time_ns: Callable[[], int] = attrs.field(repr=False)
    outbox: Outbox
    indices: IndexTable
    peers: dict[bytes, Peer] = attrs.field(factory=dict[bytes, Peer], init=False, repr=False)
    load: LoadGauge = attrs.field(factory=LoadGauge, init=False)
    verifier: MacVerifier = attrs.field(init=False, repr=False)
    _limits: SenderLimits = attrs.field(factory=SenderLimits, init=False)
    _under_load: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.verifier = MacVerifier(self.identity.public)

    # -- messages to send

    def send_initiation(self, peer: Peer, now: float, *, retry: bool = False) -> None:
        """Ask *peer* for new keys, unless a handshake message went to it in the last 5 s."""
        if not retry:
            peer.timers.retries = 0
        if now < peer.silent_until:
            return
        peer.silent_until = now + REKEY_TIMEOUT
        parameters, random = self.parameters, self.random
        timestamp = stamp(self.unix_time_ns())
        if timestamp <= peer.last_stamp_sent:
            # The clock was set back. The peer would not hear us until it has caught up.
            timestamp = later_stamp(peer.last_stamp_sent)
        peer.last_stamp_sent = timestamp
        ephemeral, static, sealed = peer.handshake.create_initiation(random(KEY_LENGTH), timestamp)
        header = parameters.h1.generate(random)
        sender = self.indices.assign(peer, random)
        message = Initiation(sender, ephemeral, static, sealed).encode(header)
        datagrams = decoys(parameters, random, self._unix_time, self.outbox.datagrams_sent)
        padding = random(parameters.s1) if parameters.s1 else b""
        peer.macs.sign(message, now)
        datagrams.append(padding + message)
        peer.timers.sent(now, data=False)
        self.outbox.send_to_peer(peer, datagrams)
        peer.timers.initiation_sent(now)
        if peer.endpoint is None:
            self.outbox.events.append(HandshakeFailed(peer, HandshakeFault.NO_ENDPOINT))
        else:
            self.outbox.events.append(HandshakeSent(peer, peer.timers.attempts, peer.endpoint))

    def _send_response(self, peer: Peer, source: Address, now: float) -> None:
        peer.silent_until = now + REKEY_TIMEOUT
        parameters, random = self.parameters, self.random
        sender = self.indices.assign(peer, random)
        header = parameters.h2.generate(random)
        ephemeral, empty = peer.handshake.create_response(random(KEY_LENGTH))
        message = Response(sender, peer.remote_index, ephemeral, empty).encode(header)
        padding = random(parameters.s2) if parameters.s2 else b""
        peer.macs.sign(message, now)
        self._derive_session(peer, now)
        peer.timers.sent(now, data=False)
        self.outbox.send_to_peer(peer, [padding + message])
        self.outbox.events.append(HandshakeAnswered(peer, source))

    def _send_cookie(self, message: bytes, source: Address, now: float) -> None:
        parameters, random = self.parameters, self.random
        header = parameters.h3.generate(random)
        reply = self.verifier.create_reply(message, source, now, random).encode(header)
        padding = random(parameters.s3) if parameters.s3 else b""
        self.outbox.send(source, [padding + reply])
        self.outbox.tell_rarely(CookieSent(source), now)

    def _derive_session(self, peer: Peer, now: float) -> Role:
        role, send_key, receive_key = peer.handshake.derive_keys()
        index = peer.handshake_index
        assert index is not None
        keypair = Keypair(peer, role, (send_key, receive_key), (index, peer.remote_index), now)
        self.indices.promote(keypair)
        self.indices.release(peer.keypairs.add(keypair))
        peer.timers.session_derived(now)
        return role

    def _unix_time(self) -> int:
        return self.unix_time_ns() // 1_000_000_000

    # -- messages received, without their paddings

    def receive_initiation(self, message: bytes, source: Address, now: float) -> None:
        """Answer an initiation, if it is good."""
        if not self._may_work_on(message, source, now):
            return
        initiation = Initiation.decode(message)
        try:
            received = open_initiation(self.identity, initiation.ephemeral, initiation.static)
        except NoiseError:
            self._reject(Rejection.UNREADABLE, source, message, now)
            return
        peer = self.peers.get(received.remote_static)
        if peer is None:
            hint = "its public key is not among the peers"
            self._reject(Rejection.UNKNOWN_PEER, source, message, now, hint)
            return
        try:
            timestamp, chain_key = peer.handshake.open_timestamp(received, initiation.timestamp)
        except NoiseError:
            self._reject(Rejection.UNREADABLE, source, message, now)
            return
        if timestamp <= peer.last_timestamp:
            hint = "played again, or the clock of the sender was set back"
            self._reject(Rejection.OLD_TIMESTAMP, source, message, now, hint)
            return
        if now <= peer.deaf_until:
            self._reject(Rejection.TOO_OFTEN, source, message, now)
            return
        peer.handshake.consume_initiation(received, initiation.timestamp, chain_key)
        peer.remote_index = initiation.sender
        peer.last_timestamp = timestamp
        peer.deaf_until = now + INITIATION_INTERVAL
        peer.timers.received(now, data=False)
        self.move_peer(peer, source)
        peer.rx_bytes += INITIATION_LENGTH
        self._send_response(peer, source, now)

    def receive_response(self, message: bytes, source: Address, now: float) -> Peer | None:
        """Take the answer to an initiation of ours, and return the peer with whom there are new keys now."""
        if not self._may_work_on(message, source, now):
            return None
        response = Response.decode(message)
        peer = self.indices.handshakes.get(response.receiver)
        if peer is None:
            self._reject(Rejection.UNEXPECTED, source, message, now)
            return None
        try:
            peer.handshake.consume_response(response.ephemeral, response.empty)
        except NoiseError:
            hint = f"{PRESHARED_KEYS_DIFFER}, if it is a peer's"
            self._reject(Rejection.UNREADABLE, source, message, now, hint)
            return None
        peer.remote_index = response.sender
        self.move_peer(peer, source)
        peer.rx_bytes += RESPONSE_LENGTH
        peer.timers.received(now, data=False)
        self._derive_session(peer, now)
        self.complete(peer, Role.INITIATOR, source, now)
        return peer

    def receive_cookie_reply(self, message: bytes, source: Address, now: float) -> None:
        """Keep the cookie for the next initiation."""
        reply = CookieReply.decode(message)
        peer = self.indices.peer_of(reply.receiver)
        if peer is not None and peer.macs.consume_reply(reply, now):
            self.outbox.events.append(CookieReceived(peer))
        else:
            self._reject(Rejection.UNEXPECTED, source, message, now)

    def complete(self, peer: Peer, role: Role, source: Address, now: float) -> None:
        """The other side has shown that it has the new keys."""
        peer.timers.handshake_complete()
        peer.last_handshake = now
        # Both sides fall silent when they send their handshake message.
        peer.round_trip = now - (peer.silent_until - REKEY_TIMEOUT)
        self.outbox.events.append(HandshakeCompleted(peer, role, source))

    def move_peer(self, peer: Peer, source: Address) -> None:
        """Send to *source* from now on, from where something authentic came."""
        if peer.endpoint != source:
            self.outbox.events.append(PeerMoved(peer, peer.endpoint, source))
            peer.endpoint = source

    # -- who may have our time

    def _may_work_on(self, message: bytes, source: Address, now: float) -> bool:
        if not self.verifier.mac1_fits(message):
            hint = "the sender has another public key for us, if it is a peer"
            self._reject(Rejection.BAD_MAC1, source, message, now, hint)
            return False
        under_load = self.load.add_message(now)
        if under_load and not self._under_load:
            self.outbox.events.append(UnderLoad())
        self._under_load = under_load
        if not under_load:
            return True
        if not self.verifier.mac2_fits(message, source, now):
            self._reject(Rejection.UNDER_LOAD, source, message, now)
            self._send_cookie(message, source, now)
            return False
        if not self._limits.allow(network_bytes(source), now):
            self._reject(Rejection.RATE_LIMITED, source, message, now)
            return False
        return True

    def _reject(self, reason: Rejection, source: Address, message: bytes, now: float, hint: str = "") -> None:
        self.outbox.reject(reason, source, message, now, hint)
