"""The stages of ``kind = "relay"``, and of the file of a relay agent."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from session_proxy.diagnosis.course import Setting, check_secret_file
from session_proxy.diagnosis.echo import GREETING, LONGEST_GREETING, check_echo
from session_proxy.diagnosis.ssh import log_in, tell_keys
from session_proxy.errors import DialError
from session_proxy.outbound.direct import DirectTransport
from session_proxy.outbound.relay import ServiceLogin, open_through_relay
from session_proxy.outbound.relay_dialing import dial_settings
from session_proxy.outbound.ssh_login import SshLogin
from session_proxy.profile.model import RelayEndpoint, RelayUpstream
from session_proxy.profile.relay_model import RelayAgent
from session_proxy.target import Target
from tunnel_relay.diagnosis import approach_relay, judge_token, offer_token, open_way
from tunnel_relay.health_check import is_healthy
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.stages import Notes, Step, Trouble, TroubleError
from tunnel_relay.websocket import printable

AGENT_STEPS = (
    Step.CONFIGURATION,
    Step.CREDENTIALS,
    Step.NAMES,
    Step.REACH,
    Step.TLS,
    Step.HANDSHAKE,
    Step.ECHO,
)
STEPS = (*AGENT_STEPS[:-1], Step.SSH, Step.ECHO)

PROBE = Target("localhost", 22)


async def examine(
    setting: Setting, name: str, upstream: RelayUpstream, endpoint: RelayEndpoint, target: Target | None
) -> None:
    """Make the steps to the agent by one relay server, and through the agent's SSH server."""
    course, services = setting.course, setting.services
    login, mode = SshLogin(name, upstream.ssh, services), Mode(upstream.mode)
    with course.stage(Step.CREDENTIALS) as notes:
        token = upstream.token.reveal().strip()
        judge_token(notes, token, "client", course.unix_time())
        check_secret_file(notes, "token", upstream.token, setting)
        dial = await dial_settings(upstream.endpoints, upstream.ca, services.environ)
        if mode is Mode.END_TO_END:
            await tell_keys(notes, login)
    async with AsyncExitStack() as stack:
        way = open_way(course, dial, endpoint.url, token, agent=upstream.agent or "", mode=mode)
        live = await stack.enter_async_context(way)
        if mode is Mode.RELAY_SSH:
            course.skip(Step.SSH, "the relay logs in, with the key that it has for the user")

            async def through_relay(wanted: Target) -> trio.abc.Stream:
                return await open_through_relay(live, wanted)

            await check_echo(course, through_relay, target, PROBE)
        else:
            service = ServiceLogin(name, upstream, login)
            link = await log_in(course, stack, login, service.open_link(live))
            await check_echo(course, link.open, target, PROBE)


async def examine_agent(setting: Setting, agent: RelayAgent, endpoint: RelayEndpoint) -> None:
    """Make the steps of an agent to one relay server, and to what it offers; it is not registered there."""
    course, services = setting.course, setting.services
    with course.stage(Step.CREDENTIALS) as notes:
        token = agent.token.reveal().strip()
        judge_token(notes, token, "agent", course.unix_time())
        check_secret_file(notes, "token", agent.token, setting)
        dial = await dial_settings(agent.endpoints, agent.ca, services.environ)
    stream = await approach_relay(course, dial, endpoint.url)
    try:
        with course.stage(Step.HANDSHAKE) as notes:
            await offer_token(stream, endpoint.url, token)
            notes.find("the relay accepts the token")
            if not await is_healthy(endpoint.url, dial.ssl_context, dial.proxy(endpoint.url)):
                notes.warn(
                    "the relay does not answer at its health page, so fail-back takes longer",
                    "let /api/tunnel/health through",
                )
    finally:
        await trio.aclose_forcefully(stream)
    with course.stage(Step.ECHO) as notes:
        failed = [
            fault
            for service, address in agent.services.items()
            if (fault := await _try_service(notes, service, address, DirectTransport(services)))
        ]
        if failed:
            raise TroubleError(Trouble("; ".join(failed), "start what is offered, or correct [services]"))


async def _try_service(notes: Notes, service: str, address: Target, direct: DirectTransport) -> str:
    """Note what a service says; return why it cannot be reached, else ""."""
    try:
        stream = await direct.connect_tcp(address)
    except DialError as exc:
        return f"service {service!r} at {address}: {exc}"
    heard = b""
    try:
        with trio.move_on_after(GREETING):
            heard = bytes(await stream.receive_some(LONGEST_GREETING))
    except trio.BrokenResourceError:
        return f"service {service!r} at {address}: hung up"
    finally:
        await trio.aclose_forcefully(stream)
    said = printable(heard.decode("utf-8", "replace").strip())
    notes.find(f"{service} at {address}" + (f' says "{said}"' if said else " answers"))
    return ""
