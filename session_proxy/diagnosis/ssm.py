"""The stages of ``kind = "ssm"`` and ``"ssm-port"``: AWS, an instance's agent, and what is behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from session_proxy.diagnosis.course import Setting
from session_proxy.diagnosis.echo import check_echo
from session_proxy.diagnosis.ssh import log_in, tell_keys
from session_proxy.outbound.port_pool import PROBE_TARGET
from session_proxy.outbound.ssh_link import SshLink
from session_proxy.outbound.ssh_login import SshLogin
from session_proxy.outbound.ssm import SsmSource
from session_proxy.outbound.ssm_access import SsmAccess
from session_proxy.outbound.ssm_port import SsmPortSource
from session_proxy.profile.model import SsmPortUpstream, SsmUpstream
from session_proxy.ssm.control import Control, open_control
from session_proxy.ssm.http_proxy import proxy_for
from session_proxy.ssm.session import AwsCredentials
from session_proxy.ssm.stream import SsmStream
from session_proxy.target import Target
from tunnel_relay.approach import Server, approach
from tunnel_relay.category import Category
from tunnel_relay.diagnosis import how_long
from tunnel_relay.stages import Notes, Step, Trouble, TroubleError

PORT_STEPS = (
    Step.CONFIGURATION,
    Step.CREDENTIALS,
    Step.NAMES,
    Step.REACH,
    Step.TLS,
    Step.HANDSHAKE,
    Step.ECHO,
)
STEPS = (*PORT_STEPS[:-1], Step.SSH, Step.ECHO)

# Seconds that temporary credentials should have left.
SHORT = 900.0

TRUST = "where a proxy inspects TLS, name its certificate by AWS_CA_BUNDLE"

ADVICE = "see whether the SSM agent runs there: amazon-ssm-agent.log below /var/log/amazon/ssm on Linux"

# What the agent's own code makes of it: 1024 bytes, then a millisecond of sleep.
PACE = "one session alone stays at the agent's pace, about 0.6 MB/s down"


async def examine_ssm(
    setting: Setting, name: str, upstream: SsmUpstream, entry: str, target: Target | None
) -> None:
    """Make the steps to the instance that *entry* stands for, and through its SSH server."""
    course = setting.course
    login = SshLogin(name, upstream.ssh, setting.services)
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(open_control(upstream.aws, setting.services.environ))
        access = SsmAccess(name, control, setting.services)
        source = SsmSource(upstream, login, access)
        with course.stage(Step.CREDENTIALS) as notes:
            found = await tell_credentials(notes, control, course.unix_time())
            await tell_keys(notes, login)
        await approach_aws(setting, access, found)
        with course.stage(Step.HANDSHAKE) as notes:
            notes.advice = ADVICE
            instance = await choose(notes, access, entry)
            stream = await stack.enter_async_context(source.open_session(instance))
            notes.find(f"the agent of {instance} answers")
            share = f", so downloads share up to {upstream.sessions}" if upstream.sessions > 1 else ""
            notes.find(f"{PACE}{share}")
        link = await log_in(course, stack, login, _logged_in(source, instance, stream))
        await check_echo(course, link.open, target, Target("localhost", upstream.ssh.port))


@asynccontextmanager
async def _logged_in(source: SsmSource, instance: str, stream: SsmStream) -> AsyncGenerator[SshLink]:
    # A key that is pushed is good for a minute only.
    identities = await source.identities(instance)
    async with source.log_in(instance, stream, identities) as link:
        yield link


async def examine_port(
    setting: Setting, name: str, upstream: SsmPortUpstream, entry: str, target: Target | None
) -> None:
    """Make the steps to the instance that *entry* stands for, and through its agent."""
    course = setting.course
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(open_control(upstream.aws, setting.services.environ))
        access = SsmAccess(name, control, setting.services)
        with course.stage(Step.CREDENTIALS) as notes:
            found = await tell_credentials(notes, control, course.unix_time())
        await approach_aws(setting, access, found)
        with course.stage(Step.HANDSHAKE) as notes:
            notes.advice = ADVICE
            instance = await choose(notes, access, entry)
            way = SsmPortSource(upstream, access).connect(instance, target or PROBE_TARGET)
            link = await stack.enter_async_context(way)
            notes.find(f"the agent of {instance} answers")
            notes.find(f"{PACE}; each destination has a session of its own")
        await check_echo(course, link.open, target, PROBE_TARGET)


async def tell_credentials(notes: Notes, control: Control, now: float) -> AwsCredentials:
    """Note which AWS credentials are used; raises `AwsError` where there are none."""
    found = await control.credentials()
    notes.find(f"AWS: {found.source} ({found.key}), region {found.region}")
    if found.expires is not None:
        left = found.expires - now
        if left <= 0:
            raise TroubleError(
                Trouble(
                    f"the AWS credentials expired {how_long(-left)} ago",
                    "get new ones, for example by `aws sso login`",
                    Category.AUTHENTICATION,
                )
            )
        notes.find(f"good for {how_long(left)}")
        if left < SHORT:
            notes.warn(f"the AWS credentials expire in {how_long(left)}", "get new ones in time")
    return found


async def approach_aws(setting: Setting, access: SsmAccess, found: AwsCredentials) -> None:
    """Make the steps NAMES, REACH and TLS to Session Manager's endpoint."""
    proxy = proxy_for(found.endpoint, setting.services.environ)
    context = await access.ssl_context()
    await trio.aclose_forcefully(
        await approach(setting.course, Server.of_url(found.endpoint, proxy, context, TRUST))
    )


async def choose(notes: Notes, access: SsmAccess, entry: str) -> str:
    """Return the instance that is tried for *entry*; raises `LinkFailedError`."""
    instance, *others = await access.resolve(entry)
    if others:
        notes.find(f"{entry} is {instance} and {len(others)} more")
    return instance
