"""Requests through a real relay to a real agent, and what is left of them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ExitCode, OutcomeUnknownError, TransportDownError, UpstreamStartError
from session_proxy.profile.model import RelayEndpoint, RelayUpstream
from session_proxy.profile.relay_choice import RelayChoice
from session_proxy.profile.secret import Secret
from session_proxy.supervision import relay_request
from session_proxy.supervision.relay_request import Leftovers, flush_requests, make_request, outbox_file
from tests.support.relay_tokens import make_token
from tests.support.relay_tunnel import open_world
from tunnel_relay.client.forwarding import ELSEWHERE, UnknownOutcome
from tunnel_relay.client.outbox_store import OutboxStore, Sent, open_outbox_store
from tunnel_relay.client.service import TunnelService
from tunnel_relay.policy.outbox import Priority
from tunnel_relay.protocol.requests import Request, Status

NOWHERE = "ws://127.0.0.1:1"

SECONDS = 90


def choice(url: str, agent: str | None = "nas", token: str | None = None) -> RelayChoice:
    upstream = RelayUpstream(
        endpoints=(RelayEndpoint(url=url),),
        token=Secret("literal", "", token or make_token("alice")),
        agent=agent,
    )
    return RelayChoice("home", upstream, "/etc/profile.toml")


def request(name: str = "id", seconds: float = 20.0, target: str = "target") -> Request:
    return Request(id=name, target=target, payload=b"hello", time=seconds)


async def test_a_request_is_done_and_leaves_nothing(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    with trio.fail_after(SECONDS):
        async with open_world(tmp_path / "record") as world:
            here = choice(f"ws://{world.address}")
            for priority in Priority:
                asked = request(priority.name)
                response = await make_request(here, environ, asked, priority, Leftovers())
                assert (response.status, response.payload) == (Status.DONE, b"HELLO")
            assert world.target.heard == [b"hello"] * 3
            leftovers = Leftovers()
            await flush_requests(here, environ, 5, leftovers)
            assert leftovers.answered == []


async def test_what_is_urgent_is_kept_and_made_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy disk takes its time.
    monkeypatch.setattr(relay_request, "MARGIN", 2.0)
    environ = {"HOME": str(tmp_path)}
    with trio.fail_after(SECONDS):
        async with open_world(tmp_path / "record") as world:
            here = choice(f"ws://{world.address}")
            away = attrs.evolve(
                here, upstream=attrs.evolve(here.upstream, endpoints=(RelayEndpoint(url=NOWHERE),))
            )
            for name in ("one", "two"):
                with pytest.raises(TransportDownError, match=r"no response within 0\.1 s: .*; it is kept"):
                    await make_request(away, environ, request(name, 0.1), Priority.HIGH, Leftovers())
            with pytest.raises(TransportDownError, match=r"no response within 0\.1 s: .* refused$"):
                await make_request(away, environ, request("gone", 0.1), Priority.NORMAL, Leftovers())
            with pytest.raises(TransportDownError, match=r"2 requests are left after 0\.1 s"):
                await flush_requests(away, environ, 0.1, Leftovers())
            leftovers = Leftovers()
            await flush_requests(here, environ, 20, leftovers)
            assert [each.id for each, _ in leftovers.answered] == ["one", "two"]
            assert {response.status for _, response in leftovers.answered} == {Status.DONE}
            assert world.target.heard == [b"hello"] * 2


async def test_the_next_request_takes_what_is_left_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_request, "MARGIN", 0.0)
    environ = {"HOME": str(tmp_path)}
    with trio.fail_after(SECONDS):
        async with open_world(tmp_path / "record") as world:
            with pytest.raises(TransportDownError, match="Connection refused"):
                await make_request(choice(NOWHERE), environ, request("left", 3.0), Priority.HIGH, Leftovers())
            here, leftovers = choice(f"ws://{world.address}"), Leftovers()
            await make_request(here, environ, request("next"), Priority.NORMAL, leftovers)
            assert [each.id for each, _ in leftovers.answered] == ["left"]


async def test_a_token_that_is_not_accepted_is_told_at_once_and_the_request_kept(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    with trio.fail_after(SECONDS):
        async with open_world() as world:
            here = choice(f"ws://{world.address}", token="x.y.z")
            with pytest.raises(UpstreamStartError, match=r"upstream home: .*401.*; it is kept") as caught:
                await make_request(here, environ, request(), Priority.HIGH, Leftovers())
            assert caught.value.exit_code is ExitCode.NOT_PERMITTED


@pytest.mark.parametrize(
    ("priority", "outlook"),
    [
        (Priority.NORMAL, "it may have been done; ask again with --id mute$"),
        (Priority.HIGH, "it may have been done; it is kept, and made by the next"),
    ],
)
async def test_what_was_sent_and_not_answered_may_have_been_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, priority: Priority, outlook: str
) -> None:
    # The target would have longer.
    monkeypatch.setattr(relay_request, "MARGIN", -25.0)
    environ = {"HOME": str(tmp_path)}
    with trio.fail_after(SECONDS):
        async with open_world(tmp_path / "record") as world:
            world.target.held = trio.Event()
            here = choice(f"ws://{world.address}")
            with pytest.raises(OutcomeUnknownError, match=rf"^request mute: no .*; {outlook}") as caught:
                await make_request(here, environ, request("mute", 30.0), priority, Leftovers())
            assert caught.value.exit_code is ExitCode.FAILURE
            assert world.target.heard == [b"hello"]


async def test_a_response_that_is_there_outlives_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def press(_service: TunnelService) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    monkeypatch.setattr(TunnelService, "flush", press)
    monkeypatch.setattr(relay_request, "LINGER", SECONDS)
    with trio.fail_after(SECONDS):
        async with open_world(tmp_path / "record") as world:
            here = choice(f"ws://{world.address}")
            response = await make_request(
                here, {"HOME": str(tmp_path)}, request(), Priority.NORMAL, Leftovers()
            )
            assert (response.status, response.payload) == (Status.DONE, b"HELLO")


async def test_what_was_not_accepted_is_not_said_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keep_for_ever(_store: OutboxStore, _request: Request) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(relay_request, "MARGIN", 0.0)
    monkeypatch.setattr(OutboxStore, "keep", keep_for_ever)
    with trio.fail_after(SECONDS), pytest.raises(TransportDownError) as caught:
        await make_request(
            choice(NOWHERE), {"HOME": str(tmp_path)}, request("slow", 0.1), Priority.HIGH, Leftovers()
        )
    assert "it is kept" not in str(caught.value)


async def test_what_must_not_be_sent_again_is_told_with_its_id(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    with trio.fail_after(SECONDS):
        async with open_world(tmp_path / "record") as world:
            here = choice(f"ws://{world.address}")
            file = outbox_file(here, environ)
            async with open_outbox_store(file) as store:
                await store.keep(request("old"))
                await store.mark_sent("old", Sent(time.time(), "another"))
            leftovers = Leftovers()
            await flush_requests(here, environ, 20, leftovers)
            assert leftovers.unknown == [UnknownOutcome("old", ELSEWHERE)]
            async with open_outbox_store(file) as store:
                await store.keep(request("old"))
                await store.mark_sent("old", Sent(time.time(), "another"))
            with pytest.raises(OutcomeUnknownError, match=r"^request old: it was sent to another agent"):
                await make_request(here, environ, request("old"), Priority.HIGH, Leftovers())
            assert world.target.heard == []


async def test_the_target_s_own_delay_is_told_as_such(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_world(tmp_path / "record") as world:
            world.target.held = trio.Event()
            here = choice(f"ws://{world.address}")
            asked = request("slow", 0.3)
            response = await make_request(here, {"HOME": str(tmp_path)}, asked, Priority.NORMAL, Leftovers())
            assert response.status is Status.TIMED_OUT


def test_what_leads_elsewhere_has_another_file(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    first = choice(NOWHERE)
    others = [
        attrs.evolve(first, name="office"),
        attrs.evolve(first, origin="/etc/other.toml"),
        choice(NOWHERE, agent="pi"),
        choice(NOWHERE, token=make_token("mallory")),
        attrs.evolve(first, upstream=attrs.evolve(first.upstream, mode="relay-ssh")),
    ]
    files = {outbox_file(each, environ) for each in (first, *others)}
    assert len(files) == 6
    assert {file.parent for file in files} == {tmp_path / "session-proxy" / "requests"}
    assert outbox_file(choice(NOWHERE, token=make_token("alice", seconds=9)), environ) in files
