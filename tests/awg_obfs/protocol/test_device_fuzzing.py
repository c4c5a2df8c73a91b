"""Whatever arrives, a device drops it or takes it; it never raises, never answers, and never grows."""

from __future__ import annotations

import gc
import math
import random
import tracemalloc

import attrs
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from awg_obfs.events import Rejection
from awg_obfs.protocol.cookies import MacMaker
from awg_obfs.protocol.messages import Buffer
from awg_obfs.protocol.outbox import MAX_EVENTS
from tests.support.awg_world import CLIENT, OBFUSCATED, SERVER, Couple, block

EXAMPLES = 100_000
PARTS = 10

ATTACKER = ("198.51.100.66", 666)
HEADERS = [headers.start for headers in OBFUSCATED.headers]


@attrs.frozen
class Attack:
    """Two sides with a session and an open handshake, and what an attacker has to make datagrams of."""

    couple: Couple
    signers: tuple[MacMaker, MacMaker]
    # What was sent, and has arrived: it may come again, or altered.
    recorded: tuple[bytes, ...]

    @classmethod
    def prepare(cls) -> Attack:
        couple = Couple.meet(OBFUSCATED)
        couple.talk(block("hello"), block("again"))
        couple.answer(block("bye"))
        couple.world.run(11.0)
        recorded = [*couple.client.sent, *couple.server.sent]
        couple.world.loses = lambda _datagram: True
        couple.client.device.rehandshake(couple.to_server, couple.world.now)
        couple.server.device.rehandshake(couple.to_client, couple.world.now)
        couple.world.collect()
        for station in (couple.client, couple.server):
            for keypair in station.device._indices.keypairs.values():
                # Time must pass, lest so many attacks be a load; but the session shall stay.
                keypair.reject_at = math.inf
        signers = (MacMaker(couple.server.identity.public), MacMaker(couple.client.identity.public))
        return cls(couple, signers, tuple(recorded))

    def signed(self, padding: bytes, body: bytes, side: int = 0) -> bytes:
        """Return a message with the MAC1 of one who knows the public key of one side."""
        message = bytearray(body + bytes(32))
        self.signers[side].sign(message, 0.0)
        return padding + message


ATTACK = Attack.prepare()


def of_seed(number: int, length: int) -> bytes:
    """Return random bytes: cheaper for Hypothesis than to draw each of them."""
    return random.Random(number).randbytes(length)


def altered(recorded: bytes, position: int, flip: int, cut: int, tail: bytes) -> bytes:
    datagram = bytearray(recorded)
    if datagram:
        datagram[position % len(datagram)] ^= flip
    return bytes(datagram[: len(datagram) - cut % (len(datagram) + 1)]) + tail


def message_like(kind: int, seed: int, length: int) -> bytes:
    """Return a datagram with padding and header right, and a session's index where one belongs."""
    padding, header = OBFUSCATED.paddings[kind], HEADERS[kind]
    return of_seed(seed, padding) + header.to_bytes(4, "little") + index_of(seed) + of_seed(seed + 1, length)


def index_of(seed: int) -> bytes:
    """Return an index that somebody listens to."""
    couple, indices = ATTACK.couple, list[int]()
    for station in (couple.server, couple.client):
        indices += [*station.device._indices.keypairs, *station.device._indices.handshakes]
    return random.Random(seed).choice(indices).to_bytes(4, "little")


def signed_like(kind: int, seed: int) -> bytes:
    """Return an initiation or a response that MAC1 fits, with anything inside."""
    padding, header, length = OBFUSCATED.paddings[kind], HEADERS[kind], (112, 56)[kind]
    body = header.to_bytes(4, "little") + of_seed(seed, 4) + index_of(seed) + of_seed(seed, length - 8)
    return ATTACK.signed(of_seed(seed, padding), body, seed % 2)


seeds, lengths = st.integers(0, 1 << 32), st.integers(0, 1500)
datagrams = st.one_of(
    st.binary(max_size=64),
    st.builds(of_seed, seeds, lengths),
    st.builds(
        altered,
        st.sampled_from(ATTACK.recorded),
        lengths,
        st.integers(0, 255),
        lengths,
        st.binary(max_size=8),
    ),
    st.builds(message_like, st.integers(0, 3), seeds, lengths),
    st.builds(message_like, st.integers(0, 3), seeds, st.sampled_from([140, 84, 56, 24, 8])),
    st.builds(signed_like, st.integers(0, 1), seeds),
)


def receive(datagram: Buffer) -> None:
    """Let both sides have *datagram*, and hold them to what they promise."""
    couple = ATTACK.couple
    # One in 10 ms, or both are under load and answer with cookies.
    couple.world.now += 0.01
    for station, peer, home in (
        (couple.server, couple.to_client, CLIENT),
        (couple.client, couple.to_server, SERVER),
    ):
        device = station.device
        received, handshake = peer.rx_bytes, peer.last_handshake
        device.receive([datagram], ATTACKER, couple.world.now)
        assert device.take_outgoing() == []
        assert device.take_incoming() == []
        assert (peer.endpoint, peer.rx_bytes, peer.last_handshake) == (home, received, handshake)
        assert len(device.take_events()) <= 1


@given(datagrams)
def test_nothing_that_an_attacker_sends_has_an_effect(datagram: bytes) -> None:
    receive(datagram)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_at_all_has_an_effect(part: int) -> None:
    # Each part must end within pytest's limit for a test that hangs.
    @seed(part)
    @given(datagrams)
    @settings(max_examples=EXAMPLES // PARTS, deadline=None, database=None)
    def search(datagram: bytes) -> None:
        receive(datagram)

    search()

    # Every way of being dropped was gone; for the others something must be good, or have aged.
    reached = set(ATTACK.couple.server.device.rejections) | set(ATTACK.couple.client.device.rejections)
    assert set(Rejection) - reached <= {
        Rejection.UNDER_LOAD,
        Rejection.RATE_LIMITED,
        Rejection.UNKNOWN_PEER,
        Rejection.TOO_OFTEN,
        Rejection.EXPIRED_SESSION,
    }


@given(st.lists(datagrams, max_size=12), st.booleans())
def test_batches_are_taken_as_their_datagrams_are(batch: list[bytes], as_views: bool) -> None:
    couple = ATTACK.couple
    couple.world.now += 1.0
    couple.server.device.receive(
        list(map(memoryview, batch)) if as_views else batch, ATTACKER, couple.world.now
    )

    assert couple.server.device.take_outgoing() == []
    assert couple.to_client.endpoint == CLIENT


def test_under_load_every_answer_is_a_cookie_reply_of_less_than_was_asked() -> None:
    """No sender can have more sent to a victim than it sends itself."""
    couple = Attack.prepare().couple
    couple.server.device.assume_load(couple.world.now + 1000.0)
    for number in range(500):
        datagram = signed_like(number % 2, 2 * number)
        couple.server.device.receive([datagram], ("198.51.100.1", 1 + number), couple.world.now)
        (outgoing,) = couple.server.device.take_outgoing()
        (reply,) = outgoing.datagrams
        assert outgoing.address == ("198.51.100.1", 1 + number)
        assert len(reply) == 20 + 64 < len(datagram)


def test_a_flood_leaves_nothing_behind() -> None:
    couple = Attack.prepare().couple
    rng = random.Random(1)
    device = couple.server.device

    def flood(count: int) -> None:
        for number in range(count):
            source = (f"198.51.{rng.randrange(256)}.{rng.randrange(256)}", rng.randrange(1, 65536))
            choice = number % 4
            if choice < 2:
                datagram = signed_like(choice, rng.getrandbits(32) * 2)
            elif choice == 2:
                datagram = rng.randbytes(rng.randrange(200))
            else:
                datagram = message_like(3, rng.getrandbits(32), 64)
            device.receive([datagram], source, couple.world.now + number / 1000)
            device.take_outgoing()

    flood(MAX_EVENTS)
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        flood(2000)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert grown < 64 * 1024
    assert len(device._indices.keypairs) + len(device._indices.handshakes) <= 4
