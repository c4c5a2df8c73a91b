"""What a connection offers its owner, whichever engine runs it."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from awg_obfs.quic.engine import EndInDoubt, Terminated
from awg_obfs.quic.errors import Cause, ConnectionFailure, ConnectionLostError
from awg_obfs.quic.settings import EngineKind, QuicSettings
from tests.support.quic_link import ENGINES, PAIRS, Pair, Weather, needs_qh3, open_couple
from tests.support.quic_streams import echo, receive_exactly


@pytest.mark.parametrize("engine", ENGINES)
async def test_many_streams_at_once(autojump_clock: MockClock, engine: EngineKind) -> None:
    """Three hundred streams open together, more than either library's own limit."""
    async with open_couple((engine, engine)) as couple, trio.open_nursery() as nursery:

        async def serve() -> None:
            while True:
                nursery.start_soon(echo, await couple.server.accept_stream())

        nursery.start_soon(serve)
        # All of them open before any ends.
        streams = [couple.client.open_stream() for _ in range(300)]
        for number, stream in enumerate(streams):
            await stream.send_all(b"%d" % number)
        for number, stream in enumerate(streams):
            assert await receive_exactly(stream, len(b"%d" % number)) == b"%d" % number
        for stream in streams:
            await stream.send_eof()
            assert await stream.receive_some() == b""
        await trio.sleep(1)
        again = couple.client.open_stream()
        await again.send_all(b"still open for more")
        assert await receive_exactly(again, 19) == b"still open for more"
        assert couple.client.open_streams <= 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("engine", ENGINES)
async def test_datagrams_come_as_they_were_sent(autojump_clock: MockClock, engine: EngineKind) -> None:
    """The longest fits, one that is longer is refused, and none blocks those after it."""
    async with open_couple((engine, engine)) as couple:
        longest = bytes(couple.client.largest_datagram)
        assert couple.client.send_datagram(longest)
        assert not couple.client.send_datagram(longest + b"!")
        assert couple.client.send_datagram(b"")
        assert await couple.server.receive_datagram() == longest
        assert await couple.server.receive_datagram() == b""
        assert couple.server.send_datagram(b"back")
        assert await couple.client.receive_datagram() == b"back"


@pytest.mark.parametrize("engine", ENGINES)
async def test_too_many_datagrams_are_refused(autojump_clock: MockClock, engine: EngineKind) -> None:
    """What cannot leave is dropped where it is sent, not kept."""
    async with open_couple((engine, engine), settings=QuicSettings(datagrams=64)) as couple:
        answers = [couple.client.send_datagram(bytes(1000)) for _ in range(5000)]
        assert answers[0]
        assert not answers[-1]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_burst_of_datagrams_waits_for_the_congestion_window(
    autojump_clock: MockClock, engine: EngineKind
) -> None:
    """What one large UDP datagram is cut into leaves a fresh connection as acknowledgements come, all of it."""
    async with open_couple((engine, engine)) as couple:
        pieces = [bytes([number]) * couple.client.largest_datagram for number in range(50)]
        assert all(couple.client.send_datagram(piece) for piece in pieces)
        with trio.fail_after(2):
            assert [await couple.server.receive_datagram() for _ in pieces] == pieces


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_probe_measures_the_round_trip(autojump_clock: MockClock, engine: EngineKind) -> None:
    """The answer to a ping takes the round trip, and what an acknowledgement may wait."""
    async with open_couple((engine, engine), weather=lambda: Weather(delay=0.05)) as couple:
        assert 0.1 <= await couple.client.probe() <= 0.14
        assert 0.1 <= couple.client.statistics().round_trip <= 0.14


@pytest.mark.parametrize("engines", PAIRS)
async def test_closing_tells_the_peer_why(autojump_clock: MockClock, engines: Pair) -> None:
    """The code and the words arrive, streams end with the reason, and nothing can be opened any more."""
    async with open_couple(engines) as couple:
        stream = couple.client.open_stream()
        await stream.send_all(b"hello")
        accepted = await couple.server.accept_stream()
        assert await accepted.receive_some() == b"hello"
        couple.client.close(5, "going home")
        failure = await couple.server.wait_closed()
        assert (failure.cause, failure.code, failure.reason) == (Cause.PEER_CLOSED, 5, "going home")
        assert str(failure) == "closed by the peer: going home (code 0x5)"
        for use in (accepted.receive_some, couple.server.accept_stream, couple.server.receive_datagram):
            with pytest.raises(ConnectionLostError):
                await use()
        with pytest.raises(ConnectionLostError):
            await accepted.send_all(b"!")
        with pytest.raises(ConnectionLostError):
            couple.server.open_stream()
        assert couple.client.failure is not None
        assert couple.client.failure.cause is Cause.CLOSED


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_that_starts_anew_is_recognized(autojump_clock: MockClock, engine: EngineKind) -> None:
    """Its Initial packets begin another connection; retransmitted ones of the present connection do not."""
    async with open_couple((engine, engine)) as couple:
        assert not any(couple.server.is_replaced_by(datagram) for datagram in couple.up.sent)
        async with open_couple((engine, engine), seed=2) as other:
            assert couple.server.is_replaced_by(other.up.sent[0])
            assert not other.client.is_replaced_by(couple.up.sent[0])


@pytest.mark.parametrize("engine", ENGINES)
async def test_garbage_does_no_harm(autojump_clock: MockClock, engine: EngineKind) -> None:
    """Datagrams that are not QUIC, or not for us, or cut, or changed: none raises, none ends the connection."""
    rng = random.Random(3)
    async with open_couple((engine, engine)) as couple:
        stream = couple.client.open_stream()
        await stream.send_all(b"hello")
        accepted = await couple.server.accept_stream()
        await accepted.receive_some()
        genuine = list(couple.up.sent)
        for _ in range(2000):
            datagram = bytearray(rng.choice(genuine))
            match rng.randrange(4):
                case 0:
                    datagram = bytearray(rng.randbytes(rng.randrange(60)))
                case 1:
                    del datagram[rng.randrange(len(datagram)) :]
                case 2:
                    datagram[rng.randrange(len(datagram))] ^= 1 << rng.randrange(8)
                case _:
                    pass
            couple.server.received([bytes(datagram)])
        await stream.send_all(b"still here")
        assert await accepted.receive_some() == b"still here"


@needs_qh3
async def test_what_goes_wrong_at_sending_is_known_before_anybody_asks_for_more(
    autojump_clock: MockClock,
) -> None:
    """A closed core raises where a stream is opened, which would end more than this connection."""
    async with open_couple((EngineKind.QH3, EngineKind.QH3)) as couple:
        quic = cast("Any", couple.client)._engine._quic
        core = quic.core

        class Confused:
            def __getattr__(self, name: str) -> object:
                return getattr(core, name)

            def poll_transmit(self, now: float) -> object:
                if core.state == "connected":
                    raise ValueError("reserved stream is missing")
                return core.poll_transmit(now)

        quic._core = Confused()
        assert couple.client.send_datagram(b"")
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLostError, match="reserved stream"):
            couple.client.open_stream()


@needs_qh3
async def test_nothing_is_noted_behind_the_end_of_a_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that is in doubt may be told of together with that of the connection."""
    failure = ConnectionFailure(Cause.PROTOCOL)
    async with open_couple((EngineKind.QH3, EngineKind.QH3)) as couple:
        engine = cast("Any", couple.client)._engine
        assert couple.client.send_datagram(b"")
        engine.close(1, "")
        monkeypatch.setattr(engine, "take_events", lambda: [Terminated(failure), EndInDoubt(0, 5)])
        assert await couple.client.wait_closed() == failure
