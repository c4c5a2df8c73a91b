"""A request to what an agent reaches, and those that an earlier time has left."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Mapping
from pathlib import Path

import attrs
import trio

from session_proxy.errors import (
    OutcomeUnknownError,
    RequestInterruptedError,
    SessionProxyError,
    TransportDownError,
    UpstreamStartError,
)
from session_proxy.outbound.relay_tunnel import RelayTunnel, open_relay_tunnel
from session_proxy.profile.relay_choice import RelayChoice
from session_proxy.supervision.places import service_name, state_dir
from tunnel_relay.background import open_background
from tunnel_relay.client.forwarding import AnsweredLate, UnknownOutcome
from tunnel_relay.client.service import TunnelEvent
from tunnel_relay.errors import RequestLostError
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
UNKNOWN = "it may have been done"


@attrs.define(eq=False)
class _Progress:
    """How far a request has got; *kept* says whether it outlives the program once it is accepted."""

    request: Request
    kept: bool = attrs.field(kw_only=True)
    accepted: trio.Event = attrs.field(factory=trio.Event, init=False)
    sent: bool = attrs.field(default=False, init=False)
    response: Response | None = attrs.field(default=None, init=False)

    def set_sent(self, sent: bool) -> None:
        """It has been sent, or certainly not been done."""
        self.sent = sent

    @property
    def outlook(self) -> str:
        """What becomes of it without a response."""
        parts = [UNKNOWN] if self.sent else []
        if self.kept and self.accepted.is_set():
            parts.append(KEPT)
        elif self.sent:
            parts.append(f"ask again with --id {self.request.id}")
        return "".join(f"; {part}" for part in parts)

    def interrupted(self) -> RequestInterruptedError:
        """Return what to tell who did not wait, so that the same may be asked for again."""
        name = self.request.id
        said = "interrupted" if self.sent else "interrupted before it was sent"
        outlook = self.outlook or f"; ask again with --id {name}"
        return RequestInterruptedError(f"request {name}: {said}{outlook}")


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
      TransportDownError: it could not be sent in time.
      OutcomeUnknownError: it was sent, and there was no response in time; or it must not be sent again.
      StoreError: the request could not be kept.
      OutboxFullError: too many wait.
      RequestInterruptedError: there was a SIGINT before the response.

    """
    progress = _Progress(request, kept=priority is Priority.HIGH)
    with trio.CancelScope() as scope:
        async with open_background() as nursery:
            await nursery.start(_obey_interrupt, scope)
            return await _make(choice, environ, progress, priority, leftovers)
    if progress.response is not None:
        return progress.response
    raise progress.interrupted()


async def _obey_interrupt(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    """Cancel *scope* on the first SIGINT; the next one is Python's again."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            break
    scope.cancel()


async def _make(
    choice: RelayChoice,
    environ: Mapping[str, str],
    progress: _Progress,
    priority: Priority,
    leftovers: Leftovers,
) -> Response:
    request, kept = progress.request, progress.kept
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
        trouble = list[UpstreamStartError]()
        with trio.move_on_after(request.time + MARGIN) as waiting:

            async def connect() -> None:
                await progress.accepted.wait()
                try:
                    await tunnel.connect(patient=True)
                except UpstreamStartError as exc:
                    trouble.append(exc)
                    waiting.cancel()

            nursery.start_soon(connect)
            try:
                progress.response = await tunnel.service.forward_request(
                    request.target,
                    bytes(request.payload),
                    priority=priority,
                    identity=request.id,
                    most=request.most,
                    seconds=request.time,
                    accepted=progress.accepted.set,
                    sent=progress.set_sent,
                )
            except RequestLostError as exc:
                raise OutcomeUnknownError(f"request {request.id}: {exc}") from exc
            with trio.move_on_after(LINGER):
                await tunnel.service.flush()
        if progress.response is not None:
            return progress.response
        raise _not_answered(tunnel, trouble, progress)


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
    tunnel: RelayTunnel, trouble: list[UpstreamStartError], progress: _Progress
) -> SessionProxyError:
    why = f"no response within {progress.request.time:g} s{_why(tunnel)}"
    code = None
    for exc in trouble:
        why, code = str(exc), exc.exit_code
    if progress.sent:
        return OutcomeUnknownError(f"request {progress.request.id}: {why}{progress.outlook}")
    if code is not None:
        reason = why.removeprefix(f"upstream {tunnel.name}: ")
        return UpstreamStartError(tunnel.name, reason + progress.outlook, code)
    return TransportDownError(why + progress.outlook)


def _why(tunnel: RelayTunnel) -> str:
    reason = tunnel.service.state.reason
    return f": upstream {tunnel.name}: {reason}" if reason else ""
