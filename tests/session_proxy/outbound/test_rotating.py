"""What is known of a rotation's instances, without any; its users' tests have more."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from session_proxy.errors import ExitCode, TransportDownError
from session_proxy.events import ignore
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.rotating import RotatingTransport
from session_proxy.outbound.transport import HealthState
from session_proxy.policy.rotation import Rotation


class Example(RotatingTransport):
    """One to which things happen when a test says so."""

    def fail(self, *, slow: bool) -> None:
        self._failure = LinkFailedError("no", exit_code=ExitCode.NOT_PERMITTED)
        self._rotation.failed("i-1", "no", trio.current_time(), slow=slow)
        self._publish(*self._state_without_link("unused"), ())

    def start(self, reason: str) -> None:
        self._publish(*self._state_without_link(reason), (("via", "i-1"),))

    def work(self) -> None:
        self._rotation.proven("i-1")
        self._publish(HealthState.READY, "", ())

    @property
    def asked(self) -> bool:
        return self._poked.is_set()


def example() -> Example:
    return Example("dev", Rotation(("i-1",), random.Random(5)), ignore)


async def test_a_state_is_as_old_as_it_is(autojump_clock: MockClock) -> None:
    transport = example()
    began = trio.current_time()
    await trio.sleep(1)
    transport.start("connection lost")
    health = transport.health()
    assert (health.state, health.reason, health.since) == (HealthState.STARTING, "connection lost", began)
    assert health.details == (("via", "i-1"),)
    transport.work()
    assert transport.health().since == began + 1


async def test_who_waits_for_a_way_that_is_down_asks_for_the_next_attempt(autojump_clock: MockClock) -> None:
    transport = example()
    await transport.wait_usable()
    assert not transport.asked
    transport.fail(slow=False)
    with pytest.raises(LinkFailedError, match="i-1: no") as caught:
        await transport.wait_settled()
    assert caught.value.exit_code is ExitCode.NOT_PERMITTED
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.wait_usable)
        nursery.start_soon(transport.wait_changed)
        await trio.testing.wait_all_tasks_blocked()
        assert transport.asked
        transport.work()
    await transport.wait_settled()


async def test_what_only_a_person_can_heal_is_not_waited_for(autojump_clock: MockClock) -> None:
    transport = example()
    transport.fail(slow=True)
    with pytest.raises(TransportDownError, match="i-1: no"):
        await transport.wait_usable()
