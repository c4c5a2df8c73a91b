"""Notes and streams of a client that is let in and means harm: its connection may suffer, nobody else's."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
import trio
from aioquic.buffer import encode_uint_var
from aioquic.tls import Epoch
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from awg_obfs.quic.connection import GRACE, QuicConnection
from awg_obfs.quic.errors import Cause
from awg_obfs.quic.notes import Kind, Note
from awg_obfs.quic.settings import EngineKind, QuicSettings
from awg_obfs.quic.stream import QuicStream
from tests.support.quic_link import ENGINES, PAIRS, Couple, Pair, open_couple
from tests.support.quic_streams import receive_exactly

# Few, so that limits are met.
STREAMS = 16
SETTINGS = QuicSettings(streams=STREAMS)
EXAMPLES = 40

# What a connection keeps for streams.
KEPT = ("_streams", "_openings", "_told", "_holding", "_turns")

numbers = st.one_of(st.integers(0, 4 * STREAMS), st.integers(0, (1 << 64) - 1))
notes = st.builds(Note, st.sampled_from(Kind), numbers, numbers)
deeds = st.one_of(
    st.tuples(st.just("notes"), st.lists(notes, max_size=2 * STREAMS)),
    st.tuples(st.just("open"), st.binary(max_size=20)),
    st.tuples(st.just("reset"), st.integers(0, STREAMS)),
    st.tuples(st.just("stop"), st.integers(0, STREAMS)),
    st.tuples(st.just("close"), st.integers(0, STREAMS)),
    st.tuples(st.just("garble"), st.binary(max_size=40)),
    st.tuples(st.just("datagram"), st.binary(max_size=40)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, GRACE + 1])),
)


# RFC 9000, section 19; and 9221.
frame_types = st.sampled_from([*range(0x1F), 0x30, 0x31])
fields = st.one_of(st.integers(0, 70), st.integers(0, (1 << 62) - 1))


def frame(kind: int, values: list[int]) -> bytes:
    """Return something like a frame."""
    return bytes((kind,)) + b"".join(encode_uint_var(value) for value in values) + bytes(4)


def packet_of(client: QuicConnection, payload: bytes) -> bytes:
    """Return a packet of a client, run by aioquic, with frames that no client sends."""
    quic = cast("Any", client)._engine._quic
    number = quic._packet_number
    quic._packet_number += 1
    header = b"\x41" + quic._peer_cid.cid + (number & 0xFFFF).to_bytes(2, "big")
    packet: bytes = quic._cryptos[Epoch.ONE_RTT].encrypt_packet(header, payload, number)
    return packet


def kept(connection: object) -> dict[str, int]:
    """Return how much a connection keeps for streams."""
    return {name: len(getattr(connection, name)) for name in KEPT}


def send_notes(couple: Couple, sent: list[Note]) -> None:
    """Send what an honest client would not."""
    couple.client._send_notes(sent)  # pyright: ignore[reportPrivateUsage]


@attrs.define(eq=False)
class Harm:
    """Does what it is told to, over one connection."""

    couple: Couple
    streams: list[QuicStream] = attrs.field(factory=list[QuicStream])

    async def do(self, deed: tuple[str, Any]) -> None:
        client = self.couple.client
        match deed:
            case ("notes", sent):
                send_notes(self.couple, sent)
            case ("open", data):
                stream = client.open_stream()
                self.streams.append(stream)
                client.write(stream.stream_id, data)
            case ("garble", data):
                send_notes(self.couple, [Note(Kind.GO_ON, 0)])
                number = client._note_stream  # pyright: ignore[reportPrivateUsage]
                assert number is not None
                client.write(number, data)
            case ("datagram", data):
                client.send_datagram(data)
            case ("wait", seconds):
                await trio.sleep(seconds)
            case (what, number):  # pyright: ignore[reportUnknownVariableType]
                if int(number) < len(self.streams):
                    self.undo(what, self.streams[int(number)])

    def undo(self, what: str, stream: QuicStream) -> None:
        match what:
            case "reset":
                stream.reset(7)
            case "stop":
                self.couple.client.stop(stream.stream_id, 7)
            case _:
                stream.close()


@pytest.mark.parametrize("engines", PAIRS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(done=st.lists(deeds, max_size=12))
def test_whatever_a_client_says_the_server_goes_on(engines: Pair, done: list[tuple[str, Any]]) -> None:
    """Nothing is raised, and nothing grows beyond the streams that the client may open."""

    async def main() -> None:
        async with open_couple(engines, settings=SETTINGS) as couple, trio.open_nursery() as nursery:

            async def serve() -> None:
                while True:
                    # As a service that has no use for any of them.
                    stream = await couple.server.accept_stream()
                    stream.reset(3)

            nursery.start_soon(serve)
            harm = Harm(couple)
            for deed in done:
                await harm.do(deed)
                await trio.sleep(0.02)
            assert couple.server.failure is None
            most = len(harm.streams) + STREAMS
            assert all(size <= most for size in kept(couple.server).values()), kept(couple.server)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("engines", PAIRS)
async def test_a_note_opens_no_stream(autojump_clock: MockClock, engines: Pair) -> None:
    """However high its number, and however many there are."""
    async with open_couple(engines, settings=SETTINGS) as couple:
        send_notes(couple, [Note(Kind.ENDED, 4 * number, 10) for number in range(1000)])
        send_notes(couple, [Note(kind, 1 << 63, 10) for kind in Kind])
        await trio.sleep(1)
        assert couple.server.failure is None
        assert couple.server.open_streams == 0
        assert max(kept(couple.server).values()) <= STREAMS


@pytest.mark.parametrize("engines", PAIRS)
async def test_an_end_may_be_told_before_its_stream_comes(autojump_clock: MockClock, engines: Pair) -> None:
    """A note may overtake what the stream begins with."""
    async with open_couple(engines) as couple:
        stream = couple.client.open_stream()
        send_notes(couple, [Note(Kind.ENDED, stream.stream_id, 5)])
        await trio.sleep(1)
        await stream.send_all(b"hello")
        accepted = await couple.server.accept_stream()
        assert await receive_exactly(accepted, 5) == b"hello"
        assert await accepted.receive_some() == b""


@pytest.mark.parametrize("engines", PAIRS)
async def test_ends_that_are_told_again_and_again_are_kept_once(
    autojump_clock: MockClock, engines: Pair
) -> None:
    """And all of them are over once their time has come, however many come due together."""
    async with open_couple(engines) as couple:
        streams = [couple.client.open_stream() for _ in range(10)]
        accepted: list[QuicStream] = []
        for stream in streams:
            await stream.send_all(b"!")
            accepted.append(await couple.server.accept_stream())
        for _ in range(50):
            send_notes(couple, [Note(Kind.ENDED, stream.stream_id, 1) for stream in streams])
            await trio.sleep(0.01)
        assert kept(couple.server)["_told"] == len(streams)
        for each in accepted:
            each.close()
        await trio.sleep(GRACE + 2)
        assert kept(couple.server)["_told"] == 0
        assert couple.server.open_streams == 0


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    payloads=st.lists(
        st.one_of(
            st.binary(min_size=4, max_size=60), st.builds(frame, frame_types, st.lists(fields, max_size=6))
        ),
        max_size=8,
    )
)
def test_whatever_frames_a_client_sends_nothing_is_raised(engine: EngineKind, payloads: list[bytes]) -> None:
    """They may end its own connection."""

    async def main() -> None:
        async with open_couple((EngineKind.AIOQUIC, engine), settings=SETTINGS) as couple:
            stream = couple.client.open_stream()
            await stream.send_all(b"!")
            await couple.server.accept_stream()
            for payload in payloads:
                couple.server.received([packet_of(couple.client, payload)])
                await trio.sleep(0.01)
            await trio.sleep(0.1)
            assert max(kept(couple.server).values()) <= 2 * STREAMS

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_frame_of_no_kind_ends_the_connection(autojump_clock: MockClock, engine: EngineKind) -> None:
    async with open_couple((EngineKind.AIOQUIC, engine)) as couple:
        couple.server.received([packet_of(couple.client, b"\x1f" + bytes(20))])
        assert (await couple.server.wait_closed()).cause is Cause.PROTOCOL
