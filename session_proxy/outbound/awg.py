"""``kind = "awg"``: a server of ours, reached by QUIC inside an AmneziaWG session.

The tunnel keeps itself up (`awg_obfs.upkeep`). This opens it, tells what becomes of it, and says in words of this
application why a destination was not reached.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from awg_obfs.addresses import shown
from awg_obfs.client import Tunnel, TunnelSettings, TunnelState, open_tunnel
from awg_obfs.condition import NO_ANSWER, NOTHING_THROUGH
from awg_obfs.datagrams import TunnelAssociation
from awg_obfs.errors import DialFault, TunnelDialError
from awg_obfs.events import (
    AssociationClosed,
    LookUpFailed,
    Reconnecting,
    SessionDown,
    SessionUp,
    StreamClosed,
    TunnelEvent,
)
from awg_obfs.protocol.keys import key_from_text
from awg_obfs.protocol.noise import NO_PRESHARED_KEY, NoiseError
from session_proxy.errors import (
    DialError,
    DialTimeoutError,
    ExitCode,
    NotAllowedError,
    RefusedError,
    ResolutionError,
    TransportDownError,
    UnreachableError,
)
from session_proxy.events import AwgHappened, LinksChanged, Notice, Notify, UpstreamDown, UpstreamUp
from session_proxy.outbound.awg_figures import AwgFigures, Quantiles, SessionFigures
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.transport import EarlyBytes, Health, HealthState, Services
from session_proxy.profile.model import AwgUpstream
from session_proxy.target import Target
from tunnel_relay.background import open_background

# A server that knows us answers within a round trip, and one that does not never does. Two repetitions, 5 s apart,
# are for datagrams that get lost.
PATIENCE = 12.0

# Strangers get no answer, so silence is all there is to see of most mistakes.
SILENCE = (
    "check that awg-server runs there, that UDP gets through, and that private_key, public_key, preshared_key "
    "and s1 to h4 of both sides fit"
)

# A completed handshake proves the address, the keys, and all parameters but those of the session's packets.
SILENCE_AFTER_HANDSHAKE = "make s4 and h4 the same on both sides, or lower mtu"

# Whoever waits for the first session is told after this long what it waits for (seconds), and whoever has none all
# along every minute that this is still so. A resolver that does not answer shows after 3 s.
FIRST_WORD = 3.5
REMINDER = 60.0

# Seconds between two questions whether the server is there, and between two looks for an answer.
ASK_AGAIN = 0.15
LISTEN = 0.02

# More than this waits for the connection. A server holds 64 KiB until the destination has answered.
LONGEST_EARLY = 16 * 1024

ERRORS: Mapping[DialFault, type[DialError]] = {
    DialFault.REFUSED: RefusedError,
    DialFault.UNREACHABLE: UnreachableError,
    DialFault.RESOLUTION: ResolutionError,
    DialFault.NOT_ALLOWED: NotAllowedError,
    DialFault.TIMEOUT: DialTimeoutError,
    DialFault.LIMIT: TransportDownError,
    DialFault.DOWN: TransportDownError,
}

STATES: Mapping[TunnelState, HealthState] = {
    TunnelState.STARTING: HealthState.STARTING,
    TunnelState.READY: HealthState.READY,
    TunnelState.DOWN: HealthState.DOWN,
}


@attrs.frozen(eq=False)
class AwgDatagrams:
    """A `DatagramAssociation` through a tunnel; names are looked up by the server."""

    _association: TunnelAssociation = attrs.field(repr=False)

    async def send(self, target: Target, payload: bytes) -> None:
        """Send one datagram; while there is no session it may get lost."""
        self._association.send(target.host, target.port, payload)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> tuple[Target, bytes]:
        """Return the next datagram and its sender."""
        host, port, payload = await self._association.receive()
        return Target(host, port), payload

    async def aclose(self) -> None:
        """Give the association up, here and at the server."""
        await self._association.aclose()


@attrs.define(eq=False)
class Reporter:
    """Tells *notify* what becomes of the tunnel of the upstream *name*; called with the library's events."""

    name: str
    endpoint: Target
    _notify: Notify = attrs.field(repr=False)
    _is_up: bool = attrs.field(default=False, init=False)
    _is_called_down: bool = attrs.field(default=False, init=False)
    _silent_since: float | None = attrs.field(default=None, init=False)
    """When a session that is up was found to be silent."""
    _not_found: set[str] = attrs.field(factory=set[str], init=False)
    """Why the server has no address, as far as told since there was a session."""

    def __call__(self, event: TunnelEvent) -> None:
        """Tell of *event*."""
        match event:
            case SessionUp():
                self._is_up, self._is_called_down, self._silent_since = True, False, None
                self._not_found.clear()
                self._notify(UpstreamUp(self.name, shown(event.address), event.setup))
                self._notify(LinksChanged(self.name, 1))
            case SessionDown():
                self._is_up, self._silent_since = False, None
                self._notify(LinksChanged(self.name, 0))
                self.down(event.reason)
            case StreamClosed() | AssociationClosed():
                # Servers tell of those. Here the front door has a line for every connection.
                pass
            case LookUpFailed():
                # It is looked up again and again.
                if event.reason not in self._not_found:
                    self._not_found.add(event.reason)
                    self._notify(AwgHappened(self.name, event))
            case _:
                if isinstance(event, Reconnecting) and self._is_up:
                    self._silent_since = trio.current_time()
                self._notify(AwgHappened(self.name, event))

    def down(self, reason: str) -> None:
        """Tell that the upstream does not work, which is seen to all the time."""
        self._is_called_down = True
        self._notify(UpstreamDown(self.name, str(self.endpoint), explained(reason), None))

    def connecting(self, reason: str) -> None:
        """Tell that there is no session yet."""
        if reason == TunnelState.STARTING:
            reason = f"{NO_ANSWER} {self.endpoint} so far"
        if not self._is_up:
            self._notify(Notice(self.name, f"still connecting: {explained(reason)}"))

    def still_down(self, reason: str, seconds: float) -> None:
        """Tell once more that the upstream does not work."""
        message = f"down for {seconds / 60:.0f} min: {explained(reason)}"
        self._notify(Notice(self.name, message, "warning"))

    def works(self) -> None:
        """Tell that a session which had fallen silent goes on, with all that it carries."""
        if self._silent_since is None:
            return
        silent = trio.current_time() - self._silent_since
        self._silent_since = None
        if self._is_called_down:
            self._is_called_down = False
            self._notify(UpstreamUp(self.name, str(self.endpoint), silent))
        else:
            self._notify(Notice(self.name, f"the server is heard again, {silent:.1f} s later"))


def explained(reason: str) -> str:
    """Return *reason* with what to do about it, where we know."""
    if reason.startswith(NO_ANSWER):
        return f"{reason}; {SILENCE}"
    if reason.endswith(NOTHING_THROUGH):
        return f"{reason}; {SILENCE_AFTER_HANDSHAKE}"
    return reason


@attrs.define(eq=False)
class AwgTransport:
    """A `Transport` through one tunnel. Open it with `open_awg_transport`."""

    name: str
    _tunnel: Tunnel = attrs.field(repr=False)
    _reporter: Reporter = attrs.field(repr=False)
    _latency: Quantiles = attrs.field(factory=Quantiles, init=False, repr=False)

    async def connect_tcp(self, target: Target) -> trio.abc.HalfCloseableStream:
        """Have the server connect to *target*, whose name it looks up; waits while the tunnel is coming up.

        Raises:
          TransportDownError: the tunnel does not work.
          DialError: the server could not reach *target*.

        """
        return await self.connect_tcp_early(target, EarlyBytes(b""))

    async def connect_tcp_early(self, target: Target, early: EarlyBytes) -> trio.abc.HalfCloseableStream:
        """Connect as `connect_tcp` does; the server passes *early* on as soon as it is connected.

        Raises:
          TransportDownError: the tunnel does not work.
          DialError: the server could not reach *target*.

        """
        began = trio.current_time()
        data = early.data if len(early.data) <= LONGEST_EARLY else b""
        try:
            if data:
                # Only what leaves counts as sent, and nothing does before.
                await self._tunnel.wait_ready()
                early.sent = True
            stream = await self._tunnel.connect(target.host, target.port, data, repeatable=early.repeatable)
        except TunnelDialError as exc:
            early.sent = early.sent and exc.uncertain
            raise ERRORS[exc.fault](str(exc), upstream=self.name) from exc
        self._latency.observe(trio.current_time() - began)
        return stream

    async def open_udp(self) -> AwgDatagrams:
        """Open a UDP association; it outlives sessions."""
        await trio.lowlevel.checkpoint()
        return AwgDatagrams(self._tunnel.open_udp())

    async def wait_usable(self) -> None:
        """Wait until the tunnel is not known to be down; it is being seen to."""
        await self._tunnel.wait_usable()

    async def wait_changed(self) -> None:
        """Wait until the tunnel is in another state."""
        await self._tunnel.wait_change()

    async def prove(self) -> None:
        """Ask the server for a sign of life, twice for what gets lost, and return when anything came since."""
        before = self._tunnel.statistics().received
        async with open_background() as nursery:
            for delay in (0.0, ASK_AGAIN):
                nursery.start_soon(self._ask, delay)
            while self._tunnel.statistics().received <= before:
                with trio.move_on_after(LISTEN):
                    await self._tunnel.wait_change()

    async def _ask(self, delay: float) -> None:
        await trio.sleep(delay)
        await self._tunnel.probe()

    def streams(self) -> int:
        """Return how many connections and associations it carries."""
        statistics = self._tunnel.statistics()
        return statistics.streams + statistics.associations

    def health(self) -> Health:
        """Return the state; READY means that the server was heard of lately, unasked if need be."""
        tunnel = self._tunnel
        statistics = tunnel.statistics()
        reason, via = explained(tunnel.reason), str(self._reporter.endpoint)
        details = [] if via in reason else [("via", via)]
        details.append(("streams", str(statistics.streams)))
        if statistics.round_trip is not None:
            details.append(("round trip", f"{statistics.round_trip * 1e3:.1f} ms"))
        return Health(STATES[tunnel.state], reason, tunnel.since, tuple(details))

    def figures(self) -> AwgFigures:
        """Return the figures of the session as it is now."""
        statistics = self._tunnel.statistics()
        session = SessionFigures(
            link=self.name,
            up=self._tunnel.state is TunnelState.READY,
            streams=statistics.streams,
            sent=statistics.sent,
            received=statistics.received,
            round_trip=statistics.round_trip,
            latency=self._latency.values(),
        )
        return AwgFigures(sessions=(session,), rejections={**statistics.rejections})

    async def wait_settled(self) -> None:
        """Return when the tunnel works.

        Raises:
          LinkFailedError: it does not, within `PATIENCE`.

        """
        try:
            await self._tunnel.wait_ready()
        except TunnelDialError as exc:
            raise LinkFailedError(explained(str(exc))) from exc

    async def watch(self) -> None:
        """Tell when the tunnel has not come up in time, that it still has not, and when it is heard again; for ever."""
        tunnel = self._tunnel
        while True:
            state = tunnel.state
            match state:
                case TunnelState.DOWN:
                    self._reporter.down(tunnel.reason)
                case TunnelState.READY:
                    self._reporter.works()
                case TunnelState.STARTING:
                    pass
            await self._remind(state)

    async def _remind(self, state: TunnelState) -> None:
        """Return when the tunnel is no longer in *state*; tell meanwhile that it does not work."""
        tunnel = self._tunnel
        pause = {TunnelState.STARTING: FIRST_WORD, TunnelState.DOWN: REMINDER}.get(state, math.inf)
        while tunnel.state is state:
            with trio.move_on_after(pause) as waiting:
                await tunnel.wait_change()
            if not waiting.cancelled_caught or tunnel.state is not state:
                return
            if state is TunnelState.DOWN:
                self._reporter.still_down(tunnel.reason, trio.current_time() - tunnel.since)
            else:
                self._reporter.connecting(tunnel.reason)
                pause = math.inf


@asynccontextmanager
async def open_awg_transport(
    name: str, upstream: AwgUpstream, services: Services
) -> AsyncGenerator[AwgTransport, None]:
    """Keep a tunnel to an awg-server up for the length of a block.

    Yields when it is up; at once where ``startup`` is ``"background"``.

    Raises:
      LinkFailedError: the upstream is required, and did not come up in time; or there can be no session with the
        server's public key.

    """
    reporter = Reporter(name, upstream.endpoint, services.notify)
    try:
        async with (
            open_tunnel(tunnel_settings(name, upstream), reporter) as tunnel,
            open_background() as nursery,
        ):
            transport = AwgTransport(name, tunnel, reporter)
            nursery.start_soon(transport.watch)
            if upstream.startup != "background":
                await transport.wait_settled()
            yield transport
    except NoiseError as exc:
        raise LinkFailedError(
            f"public_key: {exc}", needs_person=True, exit_code=ExitCode.CONFIGURATION
        ) from exc


def tunnel_settings(name: str, upstream: AwgUpstream) -> TunnelSettings:
    """Return what the library needs to know of *upstream*."""
    preshared = upstream.preshared_key
    return TunnelSettings(
        server=(upstream.endpoint.host, upstream.endpoint.port),
        private_key=key_from_text(upstream.private_key.reveal()),
        public_key=key_from_text(upstream.public_key.reveal()),
        preshared_key=NO_PRESHARED_KEY if preshared is None else key_from_text(preshared.reveal()),
        parameters=upstream.awg,
        keepalive_padding=upstream.keepalive_padding,
        mtu=upstream.mtu,
        patience=PATIENCE,
        name=name,
    )
