from __future__ import annotations

import random

from awg_obfs.protocol.timers import NEVER, PeerTimers, Schedule, Timer


def schedule(jitter: float = 0.0) -> Schedule:
    return Schedule(lambda: jitter)


def timers_of(schedule: Schedule, owner: bytes = b"peer") -> PeerTimers:
    return PeerTimers(schedule, owner)


def fired(schedule: Schedule, until: float) -> list[tuple[float, Timer]]:
    """Return what becomes due, and when, waking no later than asked."""
    result: list[tuple[float, Timer]] = []
    while (when := schedule.next()) is not None and when <= until:
        while (timers := schedule.take_due(when)) is not None:
            timer = timers.take_due(when)
            assert timer is not None
            result.append((when, timer))
    return result


def test_data_sent_into_silence_ask_for_a_handshake() -> None:
    clock = schedule(jitter=0.2)
    timers_of(clock).sent(100.0, data=True)

    assert fired(clock, 200.0) == [(115.2, Timer.NEW_HANDSHAKE)]


def test_more_data_do_not_put_that_off_but_an_answer_does() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.sent(100.0, data=True)
    timers.sent(110.0, data=True)
    assert timers.new_handshake == 115.0

    timers.received(112.0, data=False)
    timers.sent(114.0, data=True)
    assert fired(clock, 200.0) == [(129.0, Timer.NEW_HANDSHAKE)]


def test_keepalives_do_not_ask_for_an_answer() -> None:
    clock = schedule()
    timers_of(clock).sent(100.0, data=False)

    assert clock.next() is None


def test_data_received_are_acknowledged_by_something() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.received(100.0, data=True)

    assert fired(clock, 200.0) == [(110.0, Timer.SEND_KEEPALIVE)]
    timers.received(300.0, data=True)
    timers.sent(305.0, data=False)
    assert fired(clock, 400.0) == []


def test_data_that_come_while_a_keepalive_is_pending_bring_another() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.received(100.0, data=True)
    timers.received(105.0, data=True)

    assert fired(clock, 110.0) == [(110.0, Timer.SEND_KEEPALIVE)]
    timers.keepalive_sent_late(110.0)
    assert fired(clock, 120.0) == [(120.0, Timer.SEND_KEEPALIVE)]
    timers.keepalive_sent_late(120.0)
    assert clock.take_due(200.0) is None


def test_an_initiation_is_repeated_until_it_is_answered() -> None:
    clock = schedule(jitter=0.3)
    timers = timers_of(clock)
    timers.initiation_sent(100.0)

    assert fired(clock, 200.0) == [(105.3, Timer.RETRANSMIT_HANDSHAKE)]
    timers.initiation_sent(200.0)
    timers.retries = 3
    timers.handshake_complete()
    assert fired(clock, 300.0) == []
    assert timers.retries == 0


def test_an_initiation_that_was_too_soon_comes_as_soon_as_it_may() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.rehandshake_at(103.0)
    timers.rehandshake_at(103.0)

    assert fired(clock, 200.0) == [(103.0, Timer.REHANDSHAKE)]


def test_one_that_comes_before_takes_its_place() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.rehandshake_at(103.0)
    timers.initiation_sent(102.0)
    assert fired(clock, 200.0) == [(107.0, Timer.RETRANSMIT_HANDSHAKE)]

    timers.rehandshake_at(203.0)
    timers.handshake_complete()
    assert fired(clock, 300.0) == []


def test_attempts_are_those_since_the_last_handshake() -> None:
    timers = timers_of(schedule())
    timers.initiation_sent(100.0)
    timers.initiation_sent(105.0)
    assert timers.attempts == 2

    timers.handshake_complete()
    assert timers.attempts == 0
    timers.initiation_sent(200.0)
    timers.gave_up(300.0)
    assert timers.attempts == 0


def test_keys_are_forgotten_in_the_end() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.session_derived(100.0)
    timers.gave_up(300.0)
    assert fired(clock, 1000.0) == [(640.0, Timer.FORGET_KEYS)]

    timers.gave_up(1000.0)
    assert fired(clock, 2000.0) == [(1540.0, Timer.FORGET_KEYS)]


def test_a_persistent_keepalive_follows_the_last_packet_either_way() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.set_persistent_interval(25.0, 100.0)
    assert fired(clock, 100.0) == [(100.0, Timer.PERSISTENT_KEEPALIVE)]

    timers.sent(100.0, data=False)
    timers.received(110.0, data=False)
    assert fired(clock, 200.0) == [(135.0, Timer.PERSISTENT_KEEPALIVE)]
    timers.sent(200.0, data=False)
    timers.set_persistent_interval(0.0, 201.0)
    assert fired(clock, 300.0) == []


def test_stopped_timers_are_off_the_schedule() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.sent(100.0, data=True)
    timers.session_derived(100.0)
    timers.stop()

    assert fired(clock, 5000.0) == []
    assert clock.next() is None


def test_of_several_that_are_due_the_longest_due_comes_first() -> None:
    clock = schedule()
    timers = timers_of(clock)
    timers.sent(100.0, data=True)
    timers.received(100.0, data=True)
    timers.sent(90.0, data=True)
    timers.initiation_sent(99.0)

    due = [timers.take_due(500.0) for _ in range(3)]
    assert due == [Timer.RETRANSMIT_HANDSHAKE, Timer.NEW_HANDSHAKE, None]


def test_a_schedule_is_never_late_and_forgets_what_it_has_seen() -> None:
    """Many peers, whose timers are set and put off at random, against looking at all of them."""
    rng = random.Random(3)
    clock = schedule()
    peers = [timers_of(clock, bytes([number])) for number in range(20)]
    now = 0.0
    for _ in range(3000):
        now += rng.random()
        timers = rng.choice(peers)
        match rng.randrange(6):
            case 0:
                timers.sent(now, data=True)
            case 1:
                timers.received(now, data=True)
            case 2:
                timers.initiation_sent(now)
            case 3:
                timers.session_derived(now)
            case 4:
                timers.rehandshake_at(now + rng.random())
            case _:
                timers.stop()
        earliest = min(timers.earliest() for timers in peers)
        scheduled = clock.next()
        assert (NEVER if scheduled is None else scheduled) <= earliest
        while (due := clock.take_due(now)) is not None:
            assert due.take_due(now) is not None
        assert min(timers.earliest() for timers in peers) > now
    assert len(clock._heap) < 20 * len(peers)
