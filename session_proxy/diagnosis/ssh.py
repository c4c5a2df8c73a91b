"""The stages of ``kind = "ssh"``, and those that everything has which logs in by SSH."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import trio

from session_proxy.diagnosis.course import Setting
from session_proxy.diagnosis.echo import check_echo
from session_proxy.errors import RefusedError
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.ssh import SshSource
from session_proxy.outbound.ssh_link import SshLink
from session_proxy.outbound.ssh_login import SshLogin
from session_proxy.profile.model import SshUpstream
from session_proxy.target import Target
from tunnel_relay.approach import look_up
from tunnel_relay.errors import SshKeyError
from tunnel_relay.ssh.agent import agent_identities
from tunnel_relay.stages import Course, Notes, Step, split_advice

STEPS = (Step.CONFIGURATION, Step.CREDENTIALS, Step.NAMES, Step.REACH, Step.SSH, Step.ECHO)

# How many keys are told.
MOST_TOLD = 3


async def examine(setting: Setting, name: str, upstream: SshUpstream, target: Target | None) -> None:
    """Make the steps to the bastion, and through it."""
    course, address = setting.course, upstream.address
    login = SshLogin(name, upstream.ssh, setting.services)
    source = SshSource(address, login, DirectTransport(setting.services))
    with course.stage(Step.CREDENTIALS) as notes:
        await tell_keys(notes, login)
    await look_up(course, address.host, address.port)
    async with AsyncExitStack() as stack:
        with course.stage(Step.REACH) as notes:
            try:
                stream = await source.dial()
            except RefusedError as exc:
                fix = f"start sshd there on port {address.port}, or correct the port"
                raise RefusedError(f"{address}: {exc}; {fix}") from exc
            stack.push_async_callback(trio.aclose_forcefully, stream)
            notes.find(f"TCP to {address}")
        link = await log_in(course, stack, login, source.log_in(stream))
        await check_echo(course, link.open, target, Target("localhost", address.port))


async def tell_keys(notes: Notes, login: SshLogin) -> None:
    """Note which keys there are to log in with; raises `SshKeyError` where there is none."""
    if login.wants_instance_connect:
        notes.find("EC2 Instance Connect takes a new key for each login")
        return
    socket = login.services.environ.get("SSH_AUTH_SOCK")
    if login.ssh.key is None and socket:
        try:
            await agent_identities(Path(socket))
        except SshKeyError as exc:
            notes.warn(*split_advice(f"{exc}; start it, or unset SSH_AUTH_SOCK"))
    names = [identity.name for identity in await login.identities()]
    more = f" and {len(names) - MOST_TOLD} more" if len(names) > MOST_TOLD else ""
    notes.find(f"SSH key {', '.join(names[:MOST_TOLD])}{more}")


async def log_in(
    course: Course, stack: AsyncExitStack, login: SshLogin, way: AbstractAsyncContextManager[SshLink]
) -> SshLink:
    """Make the step SSH: enter *way*, which *stack* leaves."""
    with course.stage(Step.SSH) as notes:
        link = await stack.enter_async_context(way)
        key, is_new = link.session.host_key, link.session.host_key_is_new
        new = ", new and recorded" if is_new else ""
        notes.find(f"logged in as {login.user()}, host key {key.kind} {key.fingerprint}{new}")
        notes.find(f"round trip {1e3 * await link.probe():.0f} ms")
        return link
