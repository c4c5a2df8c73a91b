"""The daemon of ``sproxy relay-server``: joins clients to their users' agents, whoever can show a token for it."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial

import attrs
import trio

from session_proxy.errors import Problem, ProfileError, ReloadError
from session_proxy.inbound.sockets import open_listeners, socket_name
from session_proxy.observability.audit_file import AuditFile, open_audit
from session_proxy.observability.http import HttpLimits, serve_http_stream
from session_proxy.observability.logging import Log
from session_proxy.observability.relay_audit import RelayAudit
from session_proxy.observability.relay_log import RelayLog
from session_proxy.observability.relay_metrics import RelayFigures, RelayMetrics
from session_proxy.profile.loading import Warn
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_keys import read_revoked, verifier_of
from session_proxy.profile.relay_model import RelayServer
from session_proxy.profile.relay_policy import MINUTE, access_of, rate_limits_of
from session_proxy.supervision.relay_cluster import RelayPeers, open_relay_peers
from session_proxy.supervision.relay_files import follow, read_tls
from session_proxy.supervision.relay_key_file import KeyFile
from session_proxy.supervision.relay_logins import change_relay_ssh, open_relay_ssh
from session_proxy.supervision.relay_pages import Routes, more_admin_routes, public_routes
from session_proxy.supervision.relay_reload import RelayChange, RelayFile, read_relay
from session_proxy.supervision.relay_worker import Post
from session_proxy.supervision.status import RelayServerStatus
from tunnel_relay.background import open_background
from tunnel_relay.link import LinkSettings
from tunnel_relay.policy.breaker import BreakerState
from tunnel_relay.policy.rate import Rate
from tunnel_relay.protocol.tokens import Verifier
from tunnel_relay.server.events import RelayEvent
from tunnel_relay.server.port import PortSettings, PublicPort
from tunnel_relay.server.relay_ssh import RelaySsh
from tunnel_relay.server.service import LEAVING, RelayService, ServiceFigures
from tunnel_relay.server.switch import Switch
from tunnel_relay.server.waiting import Room

# Of the connections that a server may have, how many need not have said yet whose they are; and of one address, unless
# more of it may come at once.
WAITING = 0.25
WAITING_EACH = 64

# Seconds between two looks at what was only counted of floods.
FLUSH = 1.0

# How many connections from one address there may be for each that may ask for a link: to look whether we live, and why.
ARRIVALS = 4


@attrs.define(eq=False)
class RelayServerDaemon:
    """One ``relay.toml``, served. Run it with `session_proxy.supervision.service.run_service`.

    Attributes:
      config: The file.
      log: Where what happens is told.
      dropped: How many lines of it nobody took.
      is_ready: Whether clients are accepted, and served.
      load: Reads the file anew, and tells what in it was probably not meant; without it, it is never reloaded.
      sockets: Where clients come in; None where they are to be opened.
      post: Where it stands among the processes that serve the file; None where it is the only one.

    """

    config: RelayServer
    log: Log
    dropped: Callable[[], int] = lambda: 0
    is_ready: Callable[[], bool] = lambda: True
    load: Callable[[Warn], RelayServer] | None = None
    sockets: Sequence[socket.socket] | None = None
    post: Post | None = None
    metrics: RelayMetrics = attrs.field(init=False)
    _lines: RelayLog = attrs.field(init=False)
    _consumers: list[Callable[[RelayEvent], None]] = attrs.field(init=False)
    _service: RelayService | None = attrs.field(default=None, init=False)
    _relay_ssh: RelaySsh | None = attrs.field(default=None, init=False)
    _peers: RelayPeers | None = attrs.field(default=None, init=False)
    _audit: AuditFile | None = attrs.field(default=None, init=False)
    _entering: RelayAudit | None = attrs.field(default=None, init=False)
    _port: PublicPort | None = attrs.field(default=None, init=False)
    _keys: KeyFile | None = attrs.field(default=None, init=False)
    _addresses: list[ListenAddress] = attrs.field(factory=list[ListenAddress], init=False)

    def __attrs_post_init__(self) -> None:
        self.metrics = RelayMetrics(self._figures)
        self._lines = RelayLog(self.log)
        self._consumers = [self._lines, self.metrics]

    async def serve(self, stop: trio.Event, *, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        """Serve clients and agents; when *stop* is set, ask them to leave, and return when they have or time is up.

        Raises:
          ListenError: an address cannot be listened on.
          AuditError: the audit log cannot be continued.
          ProfileError: the file asks for what there is not.

        """
        config = self.config
        self.log.info("starting", file=str(config.file or "-"), **_summary(config))
        with contextlib.ExitStack() as stack:
            if config.audit is not None:
                self._audit = stack.enter_context(open_audit(config.audit.file))
            async with open_background() as background:
                if self._audit is not None:
                    background.start_soon(self._audit.run, self._report("audit"))
                    self._begin_audit(self._audit)
                self._begin_tracing(background)
                service = await self._open_service(background)
                port = await self._open_port(background, service)
                async with (
                    self._telling_counts(),
                    open_relay_peers(config, service, self.log, self.post) as self._peers,
                    open_relay_ssh(config, service, self.log) as self._relay_ssh,
                ):
                    await self._accept(port, stop, task_status)

    def _begin_audit(self, audit: AuditFile) -> None:
        if audit.cut:
            self.log.warning(
                "audit", message=f"the last {audit.cut} bytes were no whole entry, and are taken away"
            )
        self._entering = RelayAudit(audit.add, time.time)
        self._consumers.append(self._entering)
        self._audit_config(cut=audit.cut)

    def _begin_tracing(self, background: trio.Nursery) -> None:
        tracing = self.config.tracing
        if tracing is None:
            return
        try:
            # It takes long to import, and few want it.
            from session_proxy.observability.tracing import RelayTracer, collector
        except ImportError as exc:
            problem = Problem("tracing", f"{exc.name} is not installed", "pip install session-proxy[tracing]")
            raise ProfileError(self.config.file, [problem]) from exc
        tracer = RelayTracer(collector(tracing.endpoint), tracing.share)
        self._consumers.append(tracer)
        background.start_soon(tracer.run, self._report("tracing"))

    def _audit_config(self, **details: str | int) -> None:
        if self._entering is not None:
            # Secrets show in it as where they come from.
            digest = hashlib.sha256(repr(self.config).encode()).hexdigest()
            self._entering.configured(digest=digest, resource=str(self.config.file or ""), **details)

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncGenerator[RelayChange]:
        """See `session_proxy.supervision.reload.Reloadable.prepare`.

        Raises:
          ReloadError: there is nothing to read, or what changed cannot be taken over.
          ProfileError: the file is wrong.

        """
        load, service = self.load, self._service
        if load is None or service is None:
            raise ReloadError("it is still starting" if load else "it runs without a file to read anew")
        yield RelayChange(self, await read_relay(self.config, load, self.log))

    def adopt(self, read: RelayFile) -> Sequence[ListenAddress]:
        """Serve what was *read* from now on, and see to it that nobody is linked whom it does not let in."""
        service, port, server = self._service, self._port, read.server
        limits = server.limits
        assert service is not None, "it was prepared"
        assert port is not None, "clients are accepted"
        self.config = server
        service.access.change(access_of(server).tiers)
        service.rates.change(rate_limits_of(server))
        service.settings = LinkSettings(heartbeat=limits.heartbeat, silence=limits.silence)
        service.switch.room.most, service.census.grace = limits.memory, limits.grace
        port.settings = attrs.evolve(_port_settings(server), tls=port.settings.tls)
        port.pages = self._pages()
        if self._relay_ssh is not None:
            change_relay_ssh(self._relay_ssh, server, self.log)
        service.trust(read.verifier)
        assert self._keys is not None, "it came with the service"
        self._keys.change(server.jwt, read.verifier)
        self._audit_config(reload="; ".join(read.changes.lines()) or "none")
        return self._addresses

    async def _open_service(self, background: trio.Nursery) -> RelayService:
        config, limits = self.config, self.config.limits
        verifier = await trio.to_thread.run_sync(verifier_of, config.jwt)
        service = RelayService(
            verifier,
            time.time,
            self.notify,
            LinkSettings(heartbeat=limits.heartbeat, silence=limits.silence),
            switch=Switch(room=Room(limits.memory)),
            access=access_of(config),
            rates=rate_limits_of(config),
            grace=limits.grace,
        )

        def trust(changed: Verifier) -> None:
            service.trust(changed)
            self.log.info("keys", file=self.config.jwt.keys.reference, keys=len(changed.keys))
            self._audit_config(keys="the file has changed")

        self._keys = KeyFile(trust, self._report("keys"), config.jwt, verifier)
        background.start_soon(self._keys.run)
        path = config.jwt.revoked
        if path is not None:

            def revoke(revoked: frozenset[str]) -> None:
                if self._peers is None:
                    service.revoked = revoked
                else:
                    self._peers.sharing.revoke_here(revoked)
                self.log.info("revoked", file=str(path), tokens=len(revoked))

            await background.start(
                follow, [path], lambda: read_revoked(path), revoke, self._report("revoked")
            )
        self._service = service
        return service

    async def _open_port(self, background: trio.Nursery, service: RelayService) -> PublicPort:
        port = self._port = PublicPort(service, self._pages(), _port_settings(self.config))
        tls = self.config.tls
        if tls is not None:

            def prove(context: ssl.SSLContext) -> None:
                port.settings = attrs.evolve(port.settings, tls=lambda: context)
                self.log.debug("certificate", file=str(tls.certificate))

            await background.start(
                follow,
                [tls.certificate, tls.key],
                lambda: read_tls(tls.certificate, tls.key),
                prove,
                self._report("certificate"),
            )
        return port

    def _pages(self) -> Callable[[trio.abc.Stream], Awaitable[None]]:
        """Return what answers whoever asks for no link."""
        config, wait = self.config, self.config.limits.handshake
        token = None if config.metrics_token is None else config.metrics_token.reveal()
        of_all = None if self.post is None else self.post.metrics
        routes = public_routes(self.is_ready, self.metrics.render, token, of_all)
        times = HttpLimits(request=wait, answer=wait, idle=wait)
        return partial(_show, routes, times)

    async def _accept(
        self, port: PublicPort, stop: trio.Event, task_status: trio.TaskStatus[Sequence[ListenAddress]]
    ) -> None:
        sockets = self.sockets or await open_listeners(self.config.listen)
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
        async with open_background() as connections:
            async with open_background() as accepting:
                serve = partial(trio.serve_listeners, handler_nursery=connections)
                await accepting.start(serve, port.serve_socket, listeners)
                self._addresses = [socket_name(sock) for sock in sockets]
                task_status.started(self._addresses)
                await stop.wait()
                port.draining = True
            until = trio.current_time() + self.config.limits.drain
            if self._relay_ssh is not None:
                with trio.move_on_at(until):
                    # Their ways go through the links that are asked to go then.
                    await self._relay_ssh.drain(LEAVING)
            await port.service.drain(max(until - trio.current_time(), 0.0))

    def notify(self, event: RelayEvent) -> None:
        """Tell everybody who logs, counts, or enters what happens into the audit log."""
        for consume in self._consumers:
            consume(event)

    @contextlib.asynccontextmanager
    async def _telling_counts(self) -> AsyncGenerator[None]:
        """Tell now and then, and at the end, of what was only counted."""

        async def tell() -> None:
            while True:
                await trio.sleep(FLUSH)
                self._flush()

        async with open_background() as nursery:
            nursery.start_soon(tell)
            try:
                yield
            finally:
                self._flush(end=True)

    def _flush(self, *, end: bool = False) -> None:
        self._lines.flush(end=end)
        if self._entering is not None:
            self._entering.flush(end=end)

    def obstacles(self) -> Mapping[str, str]:
        """Return why clients would not be served now: what is done here has to be entered into the audit log."""
        trouble = "" if self._audit is None else self._audit.trouble
        return {"audit": trouble} if trouble else {}

    def handicaps(self) -> Mapping[str, str]:
        """Return what does not work now, though clients are served: what servers share."""
        trouble = "" if self._peers is None else self._peers.trouble
        return {"store": trouble} if trouble else {}

    def status(self) -> Mapping[str, object]:
        """Return a `RelayServerStatus` as JSON values."""
        config, figures = self.config, self._service_figures()
        status = RelayServerStatus(
            file="" if config.file is None else str(config.file.absolute()),
            clients=figures.clients,
            agents=figures.agents,
            sessions=figures.sessions,
            audit="" if self._audit is None else str(self._audit.head),
        )
        return attrs.asdict(status)

    def pages(self) -> Routes:
        """Return health and metrics under the names that they have on the public port."""
        return more_admin_routes(self.metrics.render)

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of this server."""
        return self.metrics.render(accept)

    def _service_figures(self) -> ServiceFigures:
        return ServiceFigures() if self._service is None else self._service.figures()

    def _figures(self) -> RelayFigures:
        figures, audit, ssh = self._service_figures(), self._audit, self._relay_ssh
        return RelayFigures(
            sessions=figures.sessions,
            streams=figures.streams,
            queue=figures.frames,
            queue_bytes=figures.bytes,
            breaker=BreakerState.CLOSED if ssh is None else ssh.breaker_state(),
            ssh_connections=0 if ssh is None else ssh.connections,
            ssh_streams=0 if ssh is None else ssh.streams,
            peers=0 if self._peers is None else self._peers.links,
            store_up=not self.handicaps(),
            audited=0 if audit is None else audit.written,
            audit_lost=0 if audit is None else audit.lost,
            ready=self.is_ready(),
            dropped=self.dropped(),
        )

    def _report(self, event: str) -> Callable[[str], None]:
        return lambda problem: self.log.warning(event, message=problem)


async def _show(routes: Routes, times: HttpLimits, stream: trio.abc.Stream) -> None:
    await serve_http_stream(routes, stream, limits=times, once=True)


def _port_settings(server: RelayServer) -> PortSettings:
    """Return how the port is kept, but for its certificate."""
    limits = server.limits
    return PortSettings(
        trusted=server.trusted_proxies,
        proxy_protocol=server.proxy_protocol,
        handshake=limits.handshake,
        connections=limits.connections,
        waiting=max(1, round(limits.connections * WAITING)),
        waiting_each=max(WAITING_EACH, limits.upgrade_burst),
        arrivals=Rate(ARRIVALS * limits.upgrades_per_minute, MINUTE, max(1, ARRIVALS * limits.upgrade_burst)),
    )


def _summary(server: RelayServer) -> dict[str, object]:
    """Return what is configured, in a few words: never a key."""
    return {
        "profile": server.profile,
        "listen": ",".join(map(str, server.listen)),
        "tls": "no" if server.tls is None else "1.3",
        "audit": "none" if server.audit is None else str(server.audit.file),
        "tiers": ",".join(server.tiers),
        "trusted_proxies": ",".join(map(str, server.trusted_proxies)) or "none",
    }
