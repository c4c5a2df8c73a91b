"""A request to what an agent reaches, and those that an earlier time has left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from session_proxy.errors import SessionProxyError, TransportDownError, UpstreamStartError
from session_proxy.outbound.relay_tunnel import RelayTunnel, open_relay_tunnel
from session_proxy.profile.relay_choice import RelayChoice
from session_proxy.supervision.places import service_name, state_dir
from tunnel_relay.background import open_background
from tunnel_relay.client.forwarding import AnsweredLate, UnknownOutcome
from tunnel_relay.client.service import TunnelEvent
from tunnel_relay.policy.outbox import Priority
from tunnel_relay.protocol.greetings import Mode
from tunnel_relay.protocol.requests import Request, Response
from tunnel_relay.protocol.unverified import read_token

FOLDER = "requests"

# Seconds that the answer "it took too long" may take itself.
MARGIN = 1.0

# Seconds that those of an earlier time may take beyond that.
LINGER = 2.0

KEPT = 'it is kept, and made by the next "sproxy relay-request" or with --flush'


@attrs.define(eq=False)
class Leftovers:
    """What has become of requests of an earlier time.

    Attributes:
      answered: Those that were answered, and how.
      unknown: Those that were sent and are not sent again; nobody knows whether they were done.

    """

    answered: list[tuple[Request, Response]] = attrs.field(factory=list[tuple[Request, Response]])
    unknown: list[UnknownOutcome] = attrs.field(factory=list[UnknownOutcome])

    def __call__(self, event: TunnelEvent) -> None:
        """Take an event."""
        if isinstance(event, AnsweredLate):
            self.answered.append((event.request, event.response))
        elif isinstance(event, UnknownOutcome):
            self.unknown.append(event)


def outbox_file(choice: RelayChoice, environ: Mapping[str, str]) -> Path:
    """Return where requests of high priority through *choice* are kept.

    There are none that were meant for somebody else, or for another user's agent.
    """
    upstream = choice.upstream
    said = read_token(upstream.token.reveal().strip())
    user = "" if said is None else said.user
    place = "\0".join((choice.origin, choice.name, user, upstream.agent or "", upstream.mode))
    digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return state_dir(environ) / FOLDER / f"{service_name(choice.name)}-{digest}.db"


async def make_request(
    choice: RelayChoice,
    environ: Mapping[str, str],
    request: Request,
    priority: Priority,
    leftovers: Leftovers,
) -> Response:
    """Return what has become of *request*, within its time; *leftovers* are made, too, as far as they get.

    Raises:
      UpstreamStartError: there is no way to the agent before a person does something.
      TransportDownError: there was no response in time.
      StoreError: the request could not be kept.
      OutboxFullError: too many wait.
      RequestLostError: it was sent and never answered, and must not be sent again.

    """
    kept = priority is Priority.HIGH
    file = outbox_file(choice, environ)
    async with (
        open_relay_tunnel(
            choice,
            environ,
            mode=Mode(choice.upstream.mode),
            file=file if kept or file.exists() else None,
            notify=leftovers,
        ) as tunnel,
        open_background() as nursery,
    ):
        accepted, trouble = trio.Event(), list[UpstreamStartError]()
        response: Response | None = None
        with trio.move_on_after(request.time + MARGIN) as waiting:

            async def connect() -> None:
                await accepted.wait()
                try:
                    await tunnel.connect(patient=True)
                except UpstreamStartError as exc:
                    trouble.append(exc)
                    waiting.cancel()

            nursery.start_soon(connect)
            response = await tunnel.service.forward_request(
                request.target,
                bytes(request.payload),
                priority=priority,
                identity=request.id,
                most=request.most,
                seconds=request.time,
                accepted=accepted.set,
            )
            with trio.move_on_after(LINGER):
                await tunnel.service.flush()
        if response is not None:
            return response
        raise _not_answered(tunnel, trouble, request.time, kept=kept)


async def flush_requests(
    choice: RelayChoice, environ: Mapping[str, str], patience: float, leftovers: Leftovers
) -> None:
    """Make the requests that an earlier time has left.

    Raises:
      UpstreamStartError: there is no way to the agent before a person does something.
      TransportDownError: not all were answered in so many seconds.
      StoreError: the file cannot be used.

    """
    file = outbox_file(choice, environ)
    if not file.exists():
        return
    mode = Mode(choice.upstream.mode)
    async with open_relay_tunnel(choice, environ, mode=mode, file=file, notify=leftovers) as tunnel:
        if not tunnel.service.metrics.queued:
            return
        with trio.move_on_after(patience):
            await tunnel.connect(patient=True)
            await tunnel.service.flush()
            return
        left = tunnel.service.metrics.queued
        raise TransportDownError(f"{left} requests are left after {patience:g} s{_why(tunnel)}")


def _not_answered(
    tunnel: RelayTunnel, trouble: list[UpstreamStartError], patience: float, *, kept: bool
) -> SessionProxyError:
    behind = f"; {KEPT}" if kept else ""
    for exc in trouble:
        reason = str(exc).removeprefix(f"upstream {tunnel.name}: ")
        return UpstreamStartError(tunnel.name, reason + behind, exc.exit_code)
    return TransportDownError(f"no response within {patience:g} s{_why(tunnel)}{behind}")


def _why(tunnel: RelayTunnel) -> str:
    reason = tunnel.service.state.reason
    return f": upstream {tunnel.name}: {reason}" if reason else ""
