"""One AmneziaWG device without its socket: datagrams in, datagrams and plaintexts out.

Put what comes into `Device.receive`, what is to be sent into `Device.send`, call `Device.handle_timer` at
`Device.next_timer`, and after each of these hand out what `take_outgoing`, `take_incoming` and `take_events` return.

Times are of one monotonic clock, in seconds. Nothing that a stranger sends raises, or is answered: but for cookies,
which those who know our public key get while we are under load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import attrs
from cryptography.exceptions import InvalidTag

from awg_obfs.events import DeviceEvent, HandshakeFailed, HandshakeFault, Rejection, SessionExpired
from awg_obfs.protocol.address import Address
from awg_obfs.protocol.classify import Classifier, Kind
from awg_obfs.protocol.cookies import MacMaker
from awg_obfs.protocol.handshaking import Handshaker
from awg_obfs.protocol.indices import IndexTable
from awg_obfs.protocol.keypairs import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES, Keypair
from awg_obfs.protocol.messages import TRANSPORT_HEADER, TRANSPORT_HEADER_LENGTH, Buffer
from awg_obfs.protocol.mismatch import Mismatch
from awg_obfs.protocol.noise import KEY_LENGTH, NO_PRESHARED_KEY, Handshake, PrivateKey, Role
from awg_obfs.protocol.outbox import EXPECTED, Incoming, Outbox, Outgoing
from awg_obfs.protocol.parameters import Parameters
from awg_obfs.protocol.peers import Peer
from awg_obfs.protocol.randomness import Randomness
from awg_obfs.protocol.sealing import NONCE, Sealer
from awg_obfs.protocol.sizes import TRANSPORT_OVERHEAD
from awg_obfs.protocol.timers import MAX_RETRIES, PeerTimers, Schedule, Timer

_KEEPALIVE = (b"",)


@attrs.frozen
class DeviceSettings:
    """What is not obfuscation, and need not match the other side.

    *mtu* is the largest plaintext, which bounds the zero fill; 0 is no bound. *leading_fill* puts the zero bytes in
    front of plaintexts, and takes them away from received ones: for contents that do not begin with a zero byte and do
    not tell their length, such as QUIC; both sides must agree. *keepalive_padding* puts S4 bytes in front of
    keepalives, without which a reference with S4 > 0 does not recognise them (spec, section 6.2).
    """

    mtu: int = 0
    leading_fill: bool = False
    keepalive_padding: bool = False


class Device:
    """One identity, its peers, and one obfuscation for all of them."""

    def __init__(
        self,
        identity: PrivateKey,
        parameters: Parameters,
        settings: DeviceSettings,
        random: Randomness,
        unix_time_ns: Callable[[], int],
        now: float,
        *,
        jitter: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """*random* must be cryptographic. *jitter* returns seconds below `timers.REKEY_TIMEOUT_JITTER`."""
        self.settings = settings
        self._random = random
        self._now = now
        self._outbox = Outbox()
        self._indices = IndexTable()
        self._schedule = Schedule(jitter)
        self._handshaker = Handshaker(identity, parameters, random, unix_time_ns, self._outbox, self._indices)
        self.reconfigure(parameters)

    def reconfigure(self, parameters: Parameters) -> None:
        """Obfuscate by other *parameters* from the next packet on. Sessions stay."""
        settings = self.settings
        self.parameters = parameters
        self._handshaker.parameters = parameters
        self._classifier = Classifier(parameters)
        self._mismatch = Mismatch(parameters, self._handshaker.verifier, self._indices)
        self._sealer = Sealer(
            parameters,
            self._random,
            settings.mtu,
            leading_fill=settings.leading_fill,
            padded_keepalives=settings.keepalive_padding,
        )

    # -- peers

    @property
    def peers(self) -> Sequence[Peer]:
        """All peers."""
        return tuple(self._handshaker.peers.values())

    def add_peer(
        self,
        public_key: bytes,
        preshared_key: bytes = NO_PRESHARED_KEY,
        endpoint: Address | None = None,
        persistent_keepalive: float = 0.0,
        last_timestamp: bytes = b"",
        *,
        name: str = "",
    ) -> Peer:
        """Let *public_key* have sessions with us. A *persistent_keepalive* (seconds) begins with the first timer.

        Raises:
          ValueError: there is such a peer, or a key has not 32 bytes.
          NoiseError: *public_key* is one with which there is no secret.
        """
        peers = self._handshaker.peers
        if public_key in peers:
            raise ValueError("two peers with one public key")
        if len(public_key) != KEY_LENGTH or len(preshared_key) != KEY_LENGTH:
            raise ValueError(f"a key has {KEY_LENGTH} bytes")
        handshake = Handshake(self._handshaker.identity, public_key, preshared_key)
        timers = PeerTimers(self._schedule, public_key)
        peer = Peer(
            public_key=public_key,
            name=name,
            endpoint=endpoint,
            last_timestamp=last_timestamp,
            handshake=handshake,
            macs=MacMaker(public_key),
            timers=timers,
        )
        peers[public_key] = peer
        timers.set_persistent_interval(persistent_keepalive, self._now)
        return peer

    def remove_peer(self, peer: Peer) -> None:
        """Forget *peer*, and its session at once."""
        del self._handshaker.peers[peer.public_key]
        peer.timers.stop()
        self._forget_session(peer)

    # -- what the driver does

    def send(self, peer: Peer, plaintexts: Sequence[Buffer], now: float) -> None:
        """Send *plaintexts* in one container. Without a session they wait for one, and a handshake begins."""
        keypair = peer.keypairs.current
        if keypair is None or peer.staged or not keypair.can_send(len(plaintexts), now):
            # The caller may use its buffers again.
            peer.staged.append([bytes(plaintext) for plaintext in plaintexts])
            self._send_staged(peer, now)
        elif plaintexts:
            self._send_container(peer, keypair, plaintexts, now)

    def rehandshake(self, peer: Peer, now: float) -> None:
        """Ask *peer* for new keys: at once, or 5 s after the last handshake message that was sent to it."""
        if now < peer.silent_until:
            peer.timers.rehandshake_at(peer.silent_until)
        else:
            self._handshaker.send_initiation(peer, now)

    def assume_load(self, until: float) -> None:
        """Be under load until then: for those who know better, and for tests."""
        self._handshaker.load.assume(until)

    def receive(self, datagrams: Sequence[Buffer], source: Address, now: float) -> None:
        """Take what came from *source*, in order."""
        parameters, sizes, indices = self.parameters, self._classifier.sizes, self._indices
        padding, low, high = parameters.s4, parameters.h4.start, parameters.h4.end
        content = padding + TRANSPORT_HEADER_LENGTH
        shortest = padding + TRANSPORT_OVERHEAD
        unpack, pack_nonce = TRANSPORT_HEADER.unpack_from, NONCE.pack
        keypair: Keypair | None = None
        plaintexts: list[bytes] = []
        for datagram in datagrams:
            size = len(datagram)
            if size < shortest or size in sizes:
                if plaintexts and keypair is not None:
                    self._received(keypair.peer, plaintexts, source, now)
                    plaintexts = []
                keypair = None
                if not self._receive_handshake(datagram, source, now):
                    continue
            header, index, counter = unpack(datagram, padding)
            if not low <= header <= high:
                self._reject(Rejection.UNKNOWN_TYPE, source, datagram, now)
                continue
            if keypair is None or index != keypair.local_index:
                if plaintexts and keypair is not None:
                    self._received(keypair.peer, plaintexts, source, now)
                    plaintexts = []
                keypair = indices.keypairs.get(index)
                if keypair is None:
                    self._reject(Rejection.UNKNOWN_SESSION, source, datagram, now)
                    continue
            if now > keypair.reject_at:
                self._reject(Rejection.EXPIRED_SESSION, source, datagram, now)
                continue
            window = keypair.window
            if not window.is_new(counter) or counter >= REJECT_AFTER_MESSAGES:
                self._reject(Rejection.REPLAYED, source, datagram, now)
                continue
            try:
                plaintext = keypair.open(pack_nonce(counter), datagram[content:], None)
            except InvalidTag:
                self._reject(Rejection.BAD_CONTENT, source, datagram, now)
                continue
            window.mark(counter)
            if keypair is keypair.peer.keypairs.next:
                self._confirm(keypair.peer, source, now)
            plaintexts.append(plaintext)
        if plaintexts and keypair is not None:
            self._received(keypair.peer, plaintexts, source, now)

    def next_timer(self) -> float | None:
        """Return when `handle_timer` must be called at the latest."""
        return self._schedule.next()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        while (timers := self._schedule.take_due(now)) is not None:
            timer = timers.take_due(now)
            if timer is not None:
                self._time_is_up(timer, self._handshaker.peers[timers.owner], now)

    def take_outgoing(self) -> list[Outgoing]:
        """Return, and forget, what is to be sent."""
        outgoing, self._outbox.outgoing = self._outbox.outgoing, []
        return outgoing

    def take_incoming(self) -> list[Incoming]:
        """Return, and forget, what the peers sent."""
        incoming, self._outbox.incoming = self._outbox.incoming, []
        return incoming

    def take_events(self) -> list[DeviceEvent]:
        """Return, and forget, what happened."""
        events = list(self._outbox.events)
        self._outbox.events.clear()
        return events

    @property
    def rejections(self) -> Counter[Rejection]:
        """How many datagrams were dropped, by reason."""
        return self._outbox.rejections

    # -- sending

    def _send_container(self, peer: Peer, keypair: Keypair, plaintexts: Sequence[Buffer], now: float) -> None:
        datagrams = self._sealer.seal(keypair, plaintexts)
        peer.timers.sent(now, data=plaintexts is not _KEEPALIVE)
        self._outbox.send_to_peer(peer, datagrams)
        if now > keypair.refresh_at or keypair.counter > REKEY_AFTER_MESSAGES:
            self._handshaker.send_initiation(peer, now)

    def _send_staged(self, peer: Peer, now: float) -> None:
        while peer.staged:
            keypair = peer.keypairs.current
            if keypair is None or not keypair.can_send(len(peer.staged[0]), now):
                self._handshaker.send_initiation(peer, now)
                return
            self._send_container(peer, keypair, peer.staged.popleft(), now)

    def _send_keepalive(self, peer: Peer, now: float) -> None:
        if not peer.staged:
            peer.staged.append(_KEEPALIVE)
        self._send_staged(peer, now)

    # -- receiving

    def _receive_handshake(self, datagram: Buffer, source: Address, now: float) -> bool:
        """Take a datagram that may be a handshake message; tells whether it is transport instead."""
        kind, padding = self._classifier.classify(datagram)
        if kind is Kind.TRANSPORT and len(datagram) >= padding + TRANSPORT_OVERHEAD:
            return True
        message = bytes(datagram[padding:])
        match kind:
            case Kind.INITIATION:
                self._handshaker.receive_initiation(message, source, now)
            case Kind.RESPONSE:
                peer = self._handshaker.receive_response(message, source, now)
                if peer is not None:
                    self._send_keepalive(peer, now)
            case Kind.COOKIE_REPLY:
                self._handshaker.receive_cookie_reply(message, source, now)
            case Kind.UNKNOWN:
                self._reject(Rejection.UNKNOWN_TYPE, source, datagram, now)
            case Kind.TOO_SMALL | Kind.TRANSPORT:
                self._reject(Rejection.TOO_SMALL, source, datagram, now)
        return False

    def _confirm(self, peer: Peer, source: Address, now: float) -> None:
        """The initiator has used the new keys for the first time."""
        self._indices.release(peer.keypairs.confirm())
        self._handshaker.move_peer(peer, source)
        self._handshaker.complete(peer, Role.RESPONDER, source, now)
        self._send_staged(peer, now)

    def _received(self, peer: Peer, plaintexts: list[bytes], source: Address, now: float) -> None:
        """Take the authentic content of some transport messages."""
        peer.rx_bytes += sum(map(len, plaintexts)) + TRANSPORT_OVERHEAD * len(plaintexts)
        self._handshaker.move_peer(peer, source)
        current, timers = peer.keypairs.current, peer.timers
        if (
            current is not None
            and now > current.refresh_receiving_at
            and not timers.sent_last_minute_handshake
        ):
            timers.sent_last_minute_handshake = True
            self._handshaker.send_initiation(peer, now)
        contents: list[Buffer]
        if self.settings.leading_fill:
            contents = [plaintext.lstrip(b"\0") for plaintext in plaintexts if plaintext]
        else:
            contents = [plaintext for plaintext in plaintexts if plaintext]
        timers.received(now, data=bool(contents))
        if contents:
            self._outbox.incoming.append(Incoming(peer, contents))

    def _reject(self, reason: Rejection, source: Address, datagram: Buffer, now: float) -> None:
        hint = self._mismatch.hint if reason in EXPECTED else ""
        self._outbox.reject(reason, source, datagram, now, hint)

    # -- timers

    def _time_is_up(self, timer: Timer, peer: Peer, now: float) -> None:
        timers = peer.timers
        match timer:
            case Timer.REHANDSHAKE:
                self.rehandshake(peer, now)
            case Timer.RETRANSMIT_HANDSHAKE if timers.retries > MAX_RETRIES:
                timers.gave_up(now)
                peer.staged.clear()
                self._outbox.events.append(HandshakeFailed(peer, HandshakeFault.NO_ANSWER))
            case Timer.RETRANSMIT_HANDSHAKE:
                timers.retries += 1
                self._handshaker.send_initiation(peer, now, retry=True)
            case Timer.SEND_KEEPALIVE:
                self._send_keepalive(peer, now)
                timers.keepalive_sent_late(now)
            case Timer.NEW_HANDSHAKE:
                self._handshaker.send_initiation(peer, now)
            case Timer.FORGET_KEYS:
                self._forget_session(peer)
                self._outbox.events.append(SessionExpired(peer))
            case Timer.PERSISTENT_KEEPALIVE:
                self._send_keepalive(peer, now)

    def _forget_session(self, peer: Peer) -> None:
        self._indices.release(peer.keypairs.clear())
        self._indices.release_handshake(peer)
        peer.handshake.forget()
        peer.staged.clear()
