"""HTTP proxies and certificates on the way to AWS; test_ssm.py and test_ssm_port.py use the rest in the lab."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import botocore
import pytest
import trio

from session_proxy.errors import ExitCode
from session_proxy.events import ConnectionClosed, Event
from session_proxy.inbound.listener import serve_front_door
from session_proxy.lab.world import LabSettings, World, open_world
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.failover import Dialer
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.ssm_access import SsmAccess, failed_session
from session_proxy.outbound.transport import Services
from session_proxy.policy.route_table import RouteTable
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import Aws, Limits, ListenAddress, SsmUpstream
from session_proxy.ssm.control import open_control
from session_proxy.ssm.errors import AwsAccessDeniedError, AwsThrottledError, SsmError

INSTANCE = "i-0123456789abcdef0"
DOCUMENT = "AWS-StartSSHSession"
BUNDLE = Path(botocore.__file__).parent / "cacert.pem"


def upstream_of(world: World) -> SsmUpstream:
    upstream = load_profile(world.profile, environ={}).upstreams["ssm"]
    assert isinstance(upstream, SsmUpstream)
    return upstream


async def serve_proxy(nursery: trio.Nursery, events: list[Event]) -> str:
    """Start an HTTP proxy, which is our own front door; return its URL."""
    dialer = Dialer(table=RouteTable.build((), "direct"), transports={"direct": DirectTransport()})
    (address,) = await nursery.start(
        partial(
            serve_front_door,
            dialer,
            [ListenAddress("127.0.0.1", 0)],
            auth=None,
            limits=Limits(),
            notify=events.append,
            stop=trio.Event(),
        )
    )
    return f"http://{address}"


@pytest.mark.parametrize("no_proxy", ["", "127.0.0.1"])
async def test_http_proxies_are_used_for_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    """Control calls (boto3 looks by itself) and data channel go through the proxy, or neither does."""
    events: list[Event] = []
    async with open_world(tmp_path, LabSettings()) as world, trio.open_nursery() as nursery:
        proxy = await serve_proxy(nursery, events)
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        environ = {**os.environ, **world.environ}
        async with open_control(upstream_of(world).aws, environ) as control:
            access = SsmAccess("dev", control, Services(environ=environ))
            session, dialing = await access.start(INSTANCE, DOCUMENT, {"portNumber": ["22"]})
            await control.terminate(session.session_id)
        nursery.cancel_scope.cancel()
    used = [event for event in events if isinstance(event, ConnectionClosed)]
    if no_proxy:
        assert dialing.proxy is None
        assert used == []
    else:
        assert dialing.proxy == proxy
        assert used


async def test_the_certificates_that_boto3_trusts_are_trusted_for_the_data_channel(tmp_path: Path) -> None:
    async with open_world(tmp_path, LabSettings()) as world:
        environ = {**os.environ, **world.environ, "AWS_CA_BUNDLE": str(BUNDLE)}
        async with open_control(upstream_of(world).aws, environ) as control:
            access = SsmAccess("dev", control, Services(environ=environ))
            session, dialing = await access.start(INSTANCE, DOCUMENT, {"portNumber": ["22"]})
            await control.terminate(session.session_id)
    assert dialing.ssl_context is not None
    assert dialing.ssl_context.cert_store_stats()["x509_ca"] > 0


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_bundle_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    environ = {"AWS_CA_BUNDLE": str(bundle)}
    async with open_control(Aws(), environ) as control:
        access = SsmAccess("dev", control, Services(environ=environ))
        with pytest.raises(LinkFailedError, match="AWS_CA_BUNDLE") as caught:
            await access.start(INSTANCE, DOCUMENT, {})
    assert caught.value.exit_code is ExitCode.CONFIGURATION


async def test_an_entry_that_is_incomplete(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, LabSettings()) as world,
        open_control(upstream_of(world).aws, world.environ) as control,
    ):
        access = SsmAccess("dev", control, Services())
        with pytest.raises(LinkFailedError, match="tag:KEY=VALUE") as caught:
            await access.resolve("tag:Role")
        assert await access.resolve("name:web-1") == (INSTANCE,)
    assert caught.value.needs_person


@pytest.mark.parametrize(
    ("error", "needs_person", "exit_code"),
    [
        (AwsAccessDeniedError("no"), True, ExitCode.NOT_PERMITTED),
        (AwsThrottledError("slow"), False, ExitCode.UNREACHABLE),
    ],
)
def test_what_a_failed_session_means(error: SsmError, needs_person: bool, exit_code: ExitCode) -> None:
    failure = failed_session(error)

    assert (str(failure), failure.needs_person, failure.exit_code) == (str(error), needs_person, exit_code)
