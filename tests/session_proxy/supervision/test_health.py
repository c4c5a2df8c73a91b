from __future__ import annotations

import pytest

from session_proxy.events import Event, LinksChanged, Listening, UpstreamDown, UpstreamUp
from session_proxy.outbound.transport import Health, HealthState
from session_proxy.policy.rules import Rule
from session_proxy.profile.model import Profile, SshUpstream
from session_proxy.supervision.health import HealthBoard
from session_proxy.target import Target

UPSTREAM = SshUpstream(address=Target("bastion", 22))

# "spare" stands behind "main" in its only route, so it may come up in the background.
PROFILE = Profile(
    upstreams={"main": UPSTREAM, "spare": UPSTREAM},
    routes=(Rule.of("10.0.0.0/8", ["main", "spare"]),),
    default="main",
)


@pytest.mark.parametrize(
    ("events", "obstacles"),
    [
        ([], {"main": "starting"}),
        ([UpstreamDown("main", "bastion:22", "no route", 1.0)], {"main": "down: no route"}),
        ([UpstreamDown("main", "bastion:22", "no route", 1.0), UpstreamUp("main", "bastion:22", 0.1)], {}),
        ([UpstreamUp("main", "bastion:22", 0.1), UpstreamDown("spare", "bastion:22", "no route", 1.0)], {}),
        ([Listening("127.0.0.1:1")], {"main": "starting"}),
    ],
)
async def test_until_transports_answer_their_events_do(
    events: list[Event], obstacles: dict[str, str]
) -> None:
    board = HealthBoard(PROFILE)

    for event in events:
        board(event)

    assert board.obstacles() == obstacles


async def test_what_is_vital_keeps_clients_away_though_the_start_does_not_wait() -> None:
    board = HealthBoard(PROFILE, frozenset({"spare"}))

    board(UpstreamUp("main", "bastion:22", 0.1))

    assert board.obstacles() == {"spare": "starting"}
    assert set(board.health()) == {"main", "spare"}


async def test_transports_answer_for_themselves_afterwards() -> None:
    board = HealthBoard(PROFILE)
    board(UpstreamDown("main", "bastion:22", "old news", 1.0))
    now = {
        "direct": Health(HealthState.READY),
        "main": Health(HealthState.READY),
        "spare": Health(HealthState.DOWN),
    }

    board.attach(lambda: now)

    assert board.health() == now
    assert board.obstacles() == {}, "neither a spare upstream nor `direct` stands in the way"


def test_links_are_remembered() -> None:
    board = HealthBoard(PROFILE)

    board(LinksChanged("main", 3))

    assert board.links == {"main": 3}


async def test_a_way_that_nothing_can_take_is_not_shown() -> None:
    board = HealthBoard(PROFILE, hidden=frozenset({"direct"}))
    board.attach(lambda: {name: Health(HealthState.READY) for name in ("direct", "main", "spare")})

    assert set(board.health()) == {"main", "spare"}
