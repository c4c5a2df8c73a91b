from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import trio
import trio.testing

from session_proxy.errors import (
    DialError,
    DialTimeoutError,
    NotAllowedError,
    RefusedError,
    ResolutionError,
    TransportDownError,
    UnreachableError,
)
from session_proxy.outbound.failover import Dialer
from session_proxy.outbound.transport import EarlyBytes, HealthState
from session_proxy.policy.race import PROVE_AFTER, PROVE_LIMIT, STAGGER, START_PATIENCE
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import Decision, Rule
from session_proxy.target import Target
from tests.support.transports import FakeEarlyTransport, FakeTransport

DB = Target.of("db.internal", 5432)


def dialer(transports: Mapping[str, FakeTransport], *rules: Rule) -> Dialer:
    return Dialer(table=RouteTable.build(rules, "direct"), transports=transports)


def via(*upstreams: str) -> Decision:
    return Decision("routes[0]", upstreams)


async def refusal(call: Callable[[], object]) -> DialError:
    with pytest.raises(DialError) as caught:
        await call()  # pyright: ignore[reportGeneralTypeIssues]
    return caught.value


async def test_the_first_upstream_that_can_carries_the_connection() -> None:
    dev, edge = FakeTransport(), FakeTransport()

    connected = await dialer({"dev": dev, "edge": edge}).connect(DB, via("dev", "edge"))

    assert connected.upstream == "dev"
    assert (dev.asked, edge.asked) == ([DB], [])


@pytest.mark.parametrize(
    "error", [UnreachableError("no route"), ResolutionError("x"), TransportDownError("x")]
)
async def test_another_network_may_see_it(error: DialError) -> None:
    dev, edge = FakeTransport([error]), FakeTransport()

    connected = await dialer({"dev": dev, "edge": edge}).connect(DB, via("dev", "edge"))

    assert connected.upstream == "edge"


@pytest.mark.parametrize("error", [RefusedError("refused"), NotAllowedError("forbidden")])
async def test_a_final_answer_ends_the_search(error: DialError) -> None:
    dev, edge = FakeTransport([error]), FakeTransport()

    with pytest.raises(type(error), match=r"^db.internal:5432 through dev: ") as caught:
        await dialer({"dev": dev, "edge": edge}).connect(DB, via("dev", "edge"))

    assert edge.asked == []
    assert caught.value.upstream == "dev"


async def test_the_message_names_everybody_who_was_tried() -> None:
    transports = {
        "dev": FakeTransport([UnreachableError("no route to host")]),
        "edge": FakeTransport([ResolutionError("no such name")]),
    }

    with pytest.raises(ResolutionError) as caught:
        await dialer(transports).connect(DB, via("dev", "edge"))

    assert str(caught.value) == ("db.internal:5432 through dev: no route to host; through edge: no such name")


async def test_the_deadline_is_shared_between_the_upstreams_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A hung upstream costs its share, not the whole time."""
    dev, edge = FakeTransport([math.inf]), FakeTransport([9.0])

    with trio.fail_after(20):
        connected = await dialer({"dev": dev, "edge": edge}).connect(DB, via("dev", "edge"))

    assert connected.upstream == "edge"
    assert trio.current_time() == pytest.approx(autojump_clock.current_time())
    assert 18.9 < trio.current_time() < 19.1


async def test_an_upstream_that_is_coming_up_is_not_a_destination_that_is_slow(
    autojump_clock: trio.testing.MockClock,
) -> None:
    starting = FakeTransport([math.inf], state=HealthState.STARTING, reason="connection to i-1 lost: cut")

    with trio.fail_after(10), pytest.raises(TransportDownError, match=r"starting, not ready .* lost: cut"):
        await dialer({"dev": starting}).connect(DB, via("dev"))


async def test_an_upstream_that_is_coming_up_is_waited_for_a_while_where_another_is_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dev, edge = FakeTransport([math.inf], state=HealthState.STARTING), FakeTransport()
    began = trio.current_time()

    connected = await dialer({"dev": dev, "edge": edge}).connect(DB, via("dev", "edge"))

    assert connected.upstream == "edge"
    assert trio.current_time() - began == pytest.approx(START_PATIENCE)


async def test_an_upstream_in_doubt_is_waited_for_a_moment_where_another_is_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    doubtful, edge = FakeTransport(), FakeTransport()
    ways = dialer({"dev": doubtful, "edge": edge})
    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "dev"
    doubtful.become(HealthState.READY, "resuming the session: cut")
    doubtful.answers = [math.inf]
    began = trio.current_time()

    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "edge"
    assert trio.current_time() - began == pytest.approx(STAGGER)
    assert len(doubtful.asked) == 1

    with trio.move_on_after(5), pytest.raises(TransportDownError, match=r"dev: not ready .*: resuming the"):
        await ways.connect(DB, via("dev"))


async def test_one_that_lost_the_race_is_not_waited_for_again_until_it_is_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dev, edge = FakeTransport(), FakeTransport()
    ways = dialer({"dev": dev, "edge": edge})
    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "dev"
    dev.become(HealthState.STARTING, "connection lost")
    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "edge"
    began = trio.current_time()

    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "edge"
    assert trio.current_time() == began

    dev.become(HealthState.READY)
    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "dev"


async def test_whichever_is_ready_first_in_its_turn_is_used(autojump_clock: trio.testing.MockClock) -> None:
    """The destination is opened once, whoever is ready meanwhile."""
    ways = {name: FakeTransport() for name in "abc"}
    connecting = dialer(ways)
    assert (await connecting.connect(DB, via("a", "b", "c"))).upstream == "a"
    for transport in ways.values():
        transport.become(HealthState.STARTING, "connection lost")
        transport.asked.clear()

    async def recover() -> None:
        await trio.sleep(STAGGER / 2)
        ways["c"].become(HealthState.READY)
        await trio.sleep(STAGGER)
        ways["b"].become(HealthState.READY)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recover)
        connected = await connecting.connect(DB, via("a", "b", "c"))

    assert connected.upstream == "b"
    assert trio.current_time() - began == pytest.approx(1.5 * STAGGER)
    assert (ways["a"].asked, ways["c"].asked) == ([], [])


async def test_a_connection_under_way_leaves_an_upstream_that_falls(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dev, edge = FakeTransport([math.inf]), FakeTransport()
    ways = dialer({"dev": dev, "edge": edge})

    async def fall() -> None:
        await trio.sleep(1)
        dev.become(HealthState.STARTING, "connection lost")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ways.lookout.watch, "dev", dev)
        nursery.start_soon(fall)
        began = trio.current_time()
        assert (await ways.connect(DB, via("dev", "edge"))).upstream == "edge"
        assert trio.current_time() - began == pytest.approx(1 + STAGGER)
        nursery.cancel_scope.cancel()


class SilentTransport(FakeTransport):
    """Gives no sign of life in time."""

    async def prove(self) -> None:
        await trio.sleep_forever()


@pytest.mark.parametrize("rounds", [1, 2])
async def test_one_that_gave_way_is_tried_again_where_the_others_can_do_nothing(
    autojump_clock: trio.testing.MockClock, rounds: int
) -> None:
    """It may have been slow only."""
    slow = [SilentTransport([math.inf, 3.0]) for _ in range(rounds)]
    edge = FakeTransport([UnreachableError("no route")])
    ways = dialer({**{f"slow{number}": each for number, each in enumerate(slow)}, "edge": edge})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ways.lookout.run)
        began = trio.current_time()
        connected = await ways.connect(DB, via(*ways.transports))
        assert connected.upstream == f"slow{rounds - 1}"
        assert trio.current_time() - began < 5
        nursery.cancel_scope.cancel()
    assert edge.asked == [DB]


async def test_one_that_gave_way_is_tried_again_where_the_other_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slow, edge, last = (
        SilentTransport([math.inf, 1.0]),
        FakeTransport(),
        FakeTransport([UnreachableError("x")]),
    )
    ways = dialer({"slow": slow, "last": last, "edge": edge})

    async def fall() -> None:
        await trio.sleep(PROVE_AFTER + PROVE_LIMIT / 2)
        edge.become(HealthState.DOWN, "gone")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ways.lookout.run)
        nursery.start_soon(fall)
        assert (await ways.connect(DB, via("slow", "last", "edge"))).upstream == "slow"
        nursery.cancel_scope.cancel()
    assert edge.asked == []


async def test_whoever_is_tried_once_more_has_its_share_of_the_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slow = [SilentTransport([math.inf] * 9), SilentTransport([math.inf] * 9)]
    ways = dialer({"a": slow[0], "b": slow[1]})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ways.lookout.run)
        began = trio.current_time()
        with pytest.raises(
            DialTimeoutError, match=r"a: no answer within 14.7 s; .* b: no answer within 14.7 s$"
        ):
            await ways.connect(DB, via("a", "b"))
        assert trio.current_time() - began == pytest.approx(30)
        nursery.cancel_scope.cancel()
    assert [len(each.asked) for each in slow] == [2, 1]


async def test_connections_go_back_to_the_better_one_when_it_has_been_ready_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ways = {"awg": FakeTransport(), "relay": FakeTransport(), "dev": FakeTransport()}
    connecting = dialer(ways)
    route = via("awg", "relay", "dev")
    connecting.lookout.memory.failback = 10.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connecting.lookout.watch, "awg", ways["awg"])
        assert (await connecting.connect(DB, route)).upstream == "awg"
        ways["awg"].become(HealthState.DOWN, "gone")
        assert (await connecting.connect(DB, route)).upstream == "relay"
        await trio.sleep(100)
        ways["awg"].become(HealthState.READY)
        await trio.sleep(9)
        assert (await connecting.connect(DB, route)).upstream == "relay"
        await trio.sleep(1)
        assert (await connecting.connect(DB, route)).upstream == "awg"
        nursery.cancel_scope.cancel()


async def test_one_that_has_just_come_back_is_used_where_nothing_else_is_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dev, edge = FakeTransport(state=HealthState.DOWN), FakeTransport()
    ways = dialer({"dev": dev, "edge": edge})
    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "edge"
    dev.become(HealthState.READY)
    edge.become(HealthState.DOWN, "gone")

    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "dev"


class FallingTransport(FakeTransport):
    """Goes down under its first connection."""

    async def connect_tcp(self, target: Target) -> trio.abc.Stream:
        if not self.asked:
            self.answers = [TransportDownError("lost")]
            self.become(HealthState.DOWN, "lost")
        return await super().connect_tcp(target)


async def test_an_upstream_that_breaks_under_a_connection_may_come_back_to_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dev = FallingTransport()

    async def recover() -> None:
        await trio.sleep(3)
        dev.become(HealthState.READY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recover)
        assert (await dialer({"dev": dev}).connect(DB, via("dev"))).upstream == "dev"
    assert len(dev.asked) == 2


async def test_a_route_may_end_in_a_refusal() -> None:
    ways = dialer({"dev": FakeTransport([UnreachableError("no route")])})
    with pytest.raises(NotAllowedError, match=r"^db.internal:5432: rejected by routes\[0\]$"):
        await ways.connect(DB, via("dev", "reject"))


async def test_what_a_change_of_the_profile_takes_away_is_passed_over() -> None:
    ways = dialer({"edge": FakeTransport()})
    assert (await ways.connect(DB, via("dev", "edge"))).upstream == "edge"
    with pytest.raises(TransportDownError, match="dev: is no longer part of the profile"):
        await ways.connect(DB, via("dev"))


async def test_who_waits_for_an_upstream_gets_the_one_that_takes_its_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    down = FakeTransport(state=HealthState.DOWN, reason="wrong key")
    ways = dialer({"dev": down})

    async def change() -> None:
        await trio.sleep(3)
        ways.adopt({"dev": FakeTransport()})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        began = trio.current_time()
        assert (await ways.connect(DB, via("dev"))).upstream == "dev"
    assert trio.current_time() - began == pytest.approx(3)


async def test_an_upstream_known_to_be_down_costs_no_time(autojump_clock: trio.testing.MockClock) -> None:
    down = FakeTransport(state=HealthState.DOWN, reason="i-1: access denied")
    edge = FakeTransport([UnreachableError("no route")])
    began = trio.current_time()

    with trio.fail_after(20), pytest.raises(UnreachableError) as caught:
        await dialer({"dev": down, "edge": edge}).connect(DB, via("dev", "edge"))

    assert str(caught.value) == ("db.internal:5432 through dev: i-1: access denied; through edge: no route")
    assert caught.value.upstream == "edge"
    assert down.asked == []
    assert trio.current_time() == began


async def test_when_all_are_down_the_first_to_come_back_is_used(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dev = FakeTransport(state=HealthState.DOWN, reason="no network")
    edge = FakeTransport(state=HealthState.DOWN, reason="no network")

    async def recover() -> None:
        await trio.sleep(7)
        edge.become(HealthState.READY)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recover)
        with trio.fail_after(20):
            connected = await dialer({"dev": dev, "edge": edge}).connect(DB, via("dev", "edge"))

    assert connected.upstream == "edge"
    assert trio.current_time() - autojump_clock.current_time() < 0.1


async def test_when_none_comes_back_the_reasons_are_told(autojump_clock: trio.testing.MockClock) -> None:
    down = FakeTransport(state=HealthState.DOWN, reason="i-1: no answer")

    with trio.fail_after(20), pytest.raises(TransportDownError, match=r"through dev: i-1: no answer$"):
        await dialer({"dev": down}).connect(DB, via("dev"))


async def test_what_only_a_person_can_heal_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    down = FakeTransport(state=HealthState.DOWN, reason="i-1: access denied", hopeless=True)
    began = trio.current_time()

    with trio.fail_after(20), pytest.raises(TransportDownError, match="access denied"):
        await dialer({"dev": down}).connect(DB, via("dev"))

    assert trio.current_time() == began


async def test_an_upstream_that_fails_though_it_says_ready_is_asked_once() -> None:
    """A contradiction between health and answers makes no loop."""
    dev = FakeTransport([TransportDownError("all sessions are in use")])

    with pytest.raises(TransportDownError, match="all sessions are in use"):
        await dialer({"dev": dev}).connect(DB, via("dev"))

    assert len(dev.asked) == 1


async def test_reject() -> None:
    with pytest.raises(NotAllowedError) as caught:
        await dialer({}).connect(DB, via("reject"))

    assert str(caught.value) == "db.internal:5432: rejected by routes[0]"
    assert caught.value.upstream == "reject"


async def test_cancelling_a_connect_goes_through() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await dialer({"dev": FakeTransport([math.inf])}).connect(DB, via("dev"))
    assert scope.cancelled_caught


async def test_early_bytes_go_with_the_request_where_an_upstream_can() -> None:
    early = EarlyBytes(b"early")
    edge = FakeEarlyTransport()

    await dialer({"edge": edge}).connect(DB, via("edge"), early)

    assert edge.took == [b"early"]
    assert (early.left, early.ahead) == (b"", 5)


async def test_early_bytes_are_the_callers_where_an_upstream_cannot() -> None:
    early = EarlyBytes(b"early")

    await dialer({"dev": FakeTransport()}).connect(DB, via("dev"), early)

    assert (early.left, early.ahead) == (b"early", 0)


async def test_nothing_does_not_go_early() -> None:
    edge = FakeEarlyTransport()

    await dialer({"edge": edge}).connect(DB, via("edge"), EarlyBytes(b""))

    assert (edge.took, edge.asked) == ([], [DB])


@pytest.mark.parametrize("can", [True, False])
async def test_early_bytes_that_have_not_arrived_are_the_next_upstreams(can: bool) -> None:
    early = EarlyBytes(b"early")
    edge = FakeEarlyTransport([UnreachableError("no route")])
    last = FakeEarlyTransport() if can else FakeTransport()

    connected = await dialer({"edge": edge, "last": last}).connect(DB, via("edge", "last"), early)

    assert connected.upstream == "last"
    assert early.left == (b"" if can else b"early")
    assert edge.took == []


async def test_early_bytes_that_may_have_arrived_are_not_sent_again() -> None:
    early = EarlyBytes(b"early")
    edge, last = FakeEarlyTransport([TransportDownError("lost")], lost=True), FakeEarlyTransport()

    with pytest.raises(TransportDownError, match=r"through edge: lost$"):
        await dialer({"edge": edge, "last": last}).connect(DB, via("edge", "last"), early)

    assert last.asked == []


async def test_early_bytes_that_may_have_arrived_are_not_kept_for_a_later_attempt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Neither by who fails, nor by who comes back."""
    edge = FakeEarlyTransport([TransportDownError("lost")], lost=True)
    down = FakeTransport(state=HealthState.DOWN, reason="no network")
    began = trio.current_time()

    with pytest.raises(TransportDownError):
        await dialer({"down": down, "edge": edge}).connect(DB, via("down", "edge"), EarlyBytes(b"early"))

    assert trio.current_time() == began


async def test_early_bytes_may_have_arrived_where_there_is_no_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    edge, last = FakeEarlyTransport([math.inf]), FakeEarlyTransport()

    with pytest.raises(DialTimeoutError):
        await dialer({"edge": edge, "last": last}).connect(DB, via("edge", "last"), EarlyBytes(b"early"))

    assert last.asked == []


async def test_early_bytes_wait_where_they_are_until_an_upstream_is_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    early = EarlyBytes(b"early")
    edge, last = FakeEarlyTransport(waits=math.inf, state=HealthState.STARTING), FakeEarlyTransport()

    connected = await dialer({"edge": edge, "last": last}).connect(DB, via("edge", "last"), early)

    assert connected.upstream == "last"
    assert last.took == [b"early"]


@pytest.mark.parametrize("can", [True, False])
async def test_early_bytes_that_may_arrive_twice_are_sent_again(can: bool) -> None:
    early = EarlyBytes(b"early", repeatable=True)
    edge = FakeEarlyTransport([TransportDownError("lost")], lost=True)
    last = FakeEarlyTransport() if can else FakeTransport()

    connected = await dialer({"edge": edge, "last": last}).connect(DB, via("edge", "last"), early)

    assert connected.upstream == "last"
    assert early.left == (b"" if can else b"early")
