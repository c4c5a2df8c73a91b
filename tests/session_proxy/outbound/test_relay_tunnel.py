"""A tunnel by an upstream's words."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ExitCode, UpstreamStartError
from session_proxy.outbound.relay_tunnel import open_relay_tunnel
from session_proxy.profile.model import RelayEndpoint, RelayUpstream
from session_proxy.profile.relay_choice import RelayChoice
from session_proxy.profile.secret import Secret
from tests.support.relay_tokens import make_token
from tests.support.relay_tunnel import World, open_world
from tunnel_relay.client.service import TunnelEvent
from tunnel_relay.dial_events import Linked
from tunnel_relay.protocol.greetings import Mode


def choice(world: World, **changes: object) -> RelayChoice:
    upstream = RelayUpstream(
        endpoints=(RelayEndpoint(url=f"ws://{world.address}"),),
        token=Secret("literal", "", make_token("alice")),
    )
    return RelayChoice("home", attrs.evolve(upstream, **changes))


async def test_it_leads_to_the_agent(tmp_path: Path) -> None:
    told: list[TunnelEvent] = []
    with trio.fail_after(90):
        async with (
            open_world(tmp_path / "record") as world,
            open_relay_tunnel(choice(world), {}, mode=Mode.END_TO_END, notify=told.append) as tunnel,
        ):
            await tunnel.connect()
            response = await tunnel.service.forward_request("target", b"hello")
            assert response.payload == b"HELLO"
    assert isinstance(told[0], Linked)


@pytest.mark.parametrize(
    ("changes", "said", "code"),
    [
        ({"agent": "pi"}, "upstream home: no agent 'pi' is connected", ExitCode.UNREACHABLE),
        ({"token": Secret("literal", "", "x.y.z")}, "401: the token is malformed", ExitCode.NOT_PERMITTED),
        (
            {"ca": Path("/nowhere/ca.pem")},
            "upstream home: ca: /nowhere/ca.pem cannot",
            ExitCode.CONFIGURATION,
        ),
        (
            {"endpoints": (RelayEndpoint(url="ws://127.0.0.1:1"),)},
            "upstream home: ws://127.0.0.1:1: .*Connection refused",
            ExitCode.UNREACHABLE,
        ),
    ],
)
async def test_what_is_wrong_has_its_exit_code(changes: dict[str, object], said: str, code: ExitCode) -> None:
    with trio.fail_after(90):
        async with open_world() as world:
            with pytest.raises(UpstreamStartError, match=said) as caught:
                async with open_relay_tunnel(choice(world, **changes), {}, mode=Mode.END_TO_END) as tunnel:
                    await tunnel.connect()
            assert caught.value.exit_code is code
