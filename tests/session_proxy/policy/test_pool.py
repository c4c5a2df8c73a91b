from __future__ import annotations

import random

import attrs

from session_proxy.policy.pool import (
    GROWTH_PATIENCE,
    IDLE_BEFORE_CLOSING,
    IDLE_CHECK,
    PAUSE_AFTER_FAILED_GROWTH,
    UNTRIED,
    Close,
    Connect,
    Load,
    Pool,
    PoolStep,
)
from session_proxy.policy.rotation import Resolve, Rotation


@attrs.define(eq=False)
class World:
    """A pool, the streams on its links, and a clock."""

    limit: int = 4
    entries: tuple[str, ...] = ("i-1", "i-2")
    now: float = 0.0
    streams: dict[int, int] = attrs.field(factory=dict[int, int])
    flowing: set[int] = attrs.field(factory=set[int])
    away: set[int] = attrs.field(factory=set[int])
    pool: Pool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pool = Pool(Rotation(self.entries, random.Random(3)), limit=self.limit)

    @property
    def loads(self) -> dict[int, Load]:
        return {
            link: Load(streams, link in self.flowing, link in self.away)
            for link, streams in self.streams.items()
        }

    def steps(self) -> list[PoolStep]:
        """Ask for steps, resolving plain ids on the way."""
        found = self.pool.steps(self.now, self.loads)
        if found and isinstance(resolve := found[0], Resolve):
            self.pool.resolved(resolve.entry, (resolve.entry,), self.now)
            return self.steps()
        return found

    def up(self) -> World:
        """Bring up every link that the pool asks for."""
        for step in self.steps():
            assert isinstance(step, Connect)
            self.streams[step.link] = 0
            self.pool.link_up(step.link, self.now)
        return self

    def place(self, *, waiting: int = 0) -> int | None:
        """Open a stream that can wait, where the pool says."""
        link = self.pool.place(self.now, self.loads, waiting=waiting, patient=True)
        if link is not None:
            self.streams[link] += 1
        return link

    def stream(self) -> int:
        """Open a stream that cannot wait, where the pool says."""
        link = self.pool.place(self.now, self.loads)
        assert link is not None
        self.streams[link] += 1
        return link


def test_one_link_at_first() -> None:
    world = World()

    assert world.pool.place(0.0, {}) is None
    assert world.steps() == [Connect(1, "i-1")]
    assert world.steps() == []
    assert not world.pool.ready
    world.pool.link_up(1, 0.0)
    assert world.pool.ready
    assert world.steps() == []


def test_a_lone_stream_needs_no_second_link() -> None:
    world = World().up()

    assert world.stream() == 1
    assert not world.pool.wants_more
    assert world.steps() == []


def test_it_grows_while_streams_queue() -> None:
    """A stream that finds every link busy is carried at once, and a link for the next one is opened."""
    world = World().up()

    assert [world.stream(), world.stream()] == [1, 1]
    assert world.pool.wants_more
    assert world.steps() == [Connect(2, "i-1")]
    assert world.stream() == 1
    world.pool.link_up(2, 0.0)
    world.streams[2] = 0
    assert world.stream() == 2


def test_a_burst_grows_to_what_it_needs_at_once() -> None:
    world = World().up()
    for _ in range(9):
        world.stream()

    assert world.steps() == [Connect(2, "i-1"), Connect(3, "i-1"), Connect(4, "i-1")]
    assert world.steps() == []


def test_streams_that_follow_each_other_do_not_grow_it() -> None:
    world = World().up()
    for _ in range(5):
        world.stream()
        world.streams[1] -= 1

    assert not world.pool.wants_more


def test_each_stream_goes_to_the_least_busy_link() -> None:
    world = World(limit=3).up()
    world.streams = {1: 5}
    world.stream()
    world.up()
    world.streams |= {2: 2, 3: 1}

    assert [world.stream() for _ in range(3)] == [3, 2, 3]


def test_a_link_that_is_away_gets_no_streams() -> None:
    world = World(limit=2).up()
    world.stream()
    world.stream()
    world.up()
    world.away = {2}
    assert [world.stream() for _ in range(2)] == [1, 1]
    world.away = {1, 2}
    assert world.place() is None
    assert world.pool.ready
    world.away = {1}
    assert world.place() == 2


def test_streams_that_start_together_wait_for_links_of_their_own() -> None:
    """No more of them wait than will find more room than there is: the others are shared out at once."""
    world = World().up()

    assert [world.place(), world.place(), world.place(waiting=1), world.place(waiting=2)] == [
        1,
        None,
        None,
        None,
    ]
    assert world.place(waiting=3) == 1
    assert world.steps() == [Connect(2, "i-1"), Connect(3, "i-1"), Connect(4, "i-1")]
    # Now there are two to a link.
    assert world.place(waiting=5) is None
    assert world.place(waiting=6) == 1


def test_those_that_wait_share_the_links_that_come_up() -> None:
    """Four waited for two links."""
    world = World(limit=3, streams={1: 3}, flowing={1}).up()
    world.streams[1] = 3
    assert [world.place(waiting=number) for number in range(4)] == [None] * 4
    for step in world.steps():
        assert isinstance(step, Connect)
    world.pool.link_up(2, 0.5)
    world.streams[2] = 0

    assert world.place(waiting=3) == 2
    assert world.place(waiting=2) == 2
    assert world.place(waiting=1) is None
    world.pool.link_up(3, 0.5)
    world.streams[3] = 0
    assert [world.place(waiting=1), world.place()] == [3, 3]
    assert world.streams == {1: 3, 2: 2, 3: 2}


def test_a_stream_beside_one_that_flows_waits() -> None:
    world = World().up()
    world.stream()
    world.now += 100 * UNTRIED
    world.flowing = {1}

    assert world.place() is None
    assert world.stream() == 1


def test_a_stream_beside_one_that_moves_nothing_does_not_wait() -> None:
    """A terminal that somebody has left open is no reason to keep others waiting."""
    world = World().up()
    world.stream()
    world.now += UNTRIED

    assert world.place() == 1
    assert world.pool.wants_more
    # The second may be another terminal, or the start of a download: that will show.
    assert world.place() is None
    world.now += UNTRIED
    assert world.place() == 1


def test_a_stream_that_has_ended_keeps_nobody_waiting() -> None:
    world = World().up()
    world.stream()
    world.now += UNTRIED
    world.stream()
    world.streams[1] = 1

    assert world.place() == 1


def test_a_link_that_moves_nothing_is_better_than_one_that_flows() -> None:
    world = World(limit=2).up()
    world.stream()
    world.stream()
    world.up()
    world.now += UNTRIED
    world.streams, world.flowing = {1: 1, 2: 5}, {1}

    assert world.place() == 2


def test_nobody_waits_where_no_link_is_coming() -> None:
    """It has all it may have; it must not ask for more yet; links take too long."""
    world = World(limit=1).up()
    assert [world.place(), world.place()] == [1, 1]

    world = World(limit=2).up()
    assert [world.place(), world.place()] == [1, None]
    (grow,) = world.steps()
    assert isinstance(grow, Connect)
    world.pool.link_failed(grow.link, "throttled", world.now)
    assert world.place() == 1

    world = World(limit=2)
    world.steps()
    world.now = GROWTH_PATIENCE + 1
    world.pool.link_up(1, world.now)
    world.streams = {1: 0}
    assert [world.place(), world.place()] == [1, 1]


def test_a_single_link_never_grows() -> None:
    world = World(limit=1).up()
    for _ in range(5):
        world.stream()

    assert not world.pool.wants_more
    assert world.steps() == []


def test_idle_links_are_given_back() -> None:
    """All but one, the youngest first, and not before they have been idle for a while."""
    world = World().up()
    for _ in range(4):
        world.stream()
    world.up()
    assert world.pool.size == 4
    world.streams = {1: 0, 2: 1, 3: 0, 4: 0}

    assert world.steps() == []
    assert world.pool.next_timer(world.now) == world.now + IDLE_CHECK
    world.now += IDLE_BEFORE_CLOSING
    assert world.steps() == [Close(4), Close(3), Close(1)]
    assert world.pool.size == 1
    assert world.steps() == []
    # Carrying on with one stream does not bring them back.
    world.now += 1000
    assert world.steps() == []


def test_use_keeps_a_link() -> None:
    world = World().up()
    world.stream()
    world.stream()
    world.up()
    world.streams = {1: 1, 2: 0}
    world.steps()
    world.now += IDLE_BEFORE_CLOSING - 1
    assert world.stream() == 2
    world.streams[2] = 0
    world.now += 1

    assert world.steps() == []


def test_the_last_link_stays() -> None:
    world = World().up()
    world.steps()
    world.now += 1000 * IDLE_BEFORE_CLOSING

    assert world.steps() == []
    assert world.pool.ready


def test_failed_growth_pauses_growth_and_nothing_else() -> None:
    world = World().up()
    world.stream()
    world.stream()
    (grow,) = world.steps()
    assert isinstance(grow, Connect)

    assert world.pool.link_failed(grow.link, "throttled", world.now) == PAUSE_AFTER_FAILED_GROWTH
    world.stream()
    assert world.steps() == []
    assert not world.pool.rotation.exhausted
    world.now += PAUSE_AFTER_FAILED_GROWTH
    assert len(world.steps()) == 2


def test_the_next_instance_takes_over() -> None:
    world = World()
    assert world.steps() == [Connect(1, "i-1")]
    world.pool.link_failed(1, "no", world.now)

    assert world.steps() == [Connect(2, "i-2")]
    world.pool.link_failed(2, "no", world.now)
    assert world.steps() == []
    assert world.pool.rotation.exhausted
    wake = world.pool.next_timer(world.now)
    assert 1 <= wake <= 2
    world.now = wake
    (step,) = world.steps()
    assert isinstance(step, Connect)


def test_losing_one_of_several_links_costs_no_rest() -> None:
    world = World().up()
    world.stream()
    world.stream()
    world.up()

    assert world.pool.link_lost(1, "cut", 1.0) == 0.0
    assert world.pool.ready
    assert world.pool.instances_up() == ("i-1",)
    assert world.pool.instance_of(2) == "i-1"
    assert world.steps() == []


def test_losing_the_last_link_reconnects_at_once() -> None:
    world = World().up()
    world.now = 100.0

    assert world.pool.link_lost(1, "cut", world.now) == 0.0
    assert world.steps() == [Connect(2, "i-1")]


def test_a_link_that_dies_at_once_makes_room_for_the_next_instance() -> None:
    world = World().up()
    world.now = 1.0
    world.pool.link_lost(1, "cut", world.now)

    assert world.steps() == [Connect(2, "i-2")]


def test_resolving_happens_once_at_a_time() -> None:
    world = World(entries=("tag:a=b",))

    assert world.pool.steps(0.0, {}) == [Resolve("tag:a=b")]
    assert world.pool.steps(0.0, {}) == []
    assert world.pool.resolve_failed("tag:a=b", "none", 0.0) > 0
    assert world.pool.steps(0.0, {}) == []
    wake = world.pool.next_timer(0.0)
    assert world.pool.steps(wake, {}) == [Resolve("tag:a=b")]
