"""The daemon of ``sproxy run``: the front door of a profile, its routes and its ways out."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from http import HTTPStatus

import attrs
import trio

from session_proxy.errors import ListenError, ReloadError
from session_proxy.events import ConnectionClosed, ConnectionOpened, Event, Listening
from session_proxy.inbound.listener import Entrances, serve_front_door
from session_proxy.inbound.pac import proxy_auto_config
from session_proxy.inbound.sockets import Taken, start_listening, take
from session_proxy.observability.http import Handler, HttpAnswer, HttpRequest
from session_proxy.observability.logging import EventLog, Log
from session_proxy.observability.metrics import Metrics
from session_proxy.outbound.awg_figures import AwgFigures, AwgSource, total
from session_proxy.outbound.failover import Preparation, Ways, open_ways
from session_proxy.outbound.transport import Health, Services
from session_proxy.policy.changes import Changes, compare, replaced
from session_proxy.profile.awg_summary import session_summary
from session_proxy.profile.model import AwgUpstream, ListenAddress, Profile
from session_proxy.supervision.health import HealthBoard
from session_proxy.supervision.reload import read_anew
from session_proxy.supervision.status import ProxyStatus, TrafficStatus, UpstreamStatus

PAC_TYPE = "application/x-ns-proxy-autoconfig"

# A PAC file cannot say "the host you asked", so a wildcard address is replaced by the one asked.
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104


@attrs.define(eq=False)
class Traffic:
    """A `Notify` that keeps what ``sproxy status`` shows of the front door."""

    listen: list[str] = attrs.field(factory=list[str], init=False)
    _open: int = attrs.field(default=0, init=False)
    _total: int = attrs.field(default=0, init=False)
    _sent: int = attrs.field(default=0, init=False)
    _received: int = attrs.field(default=0, init=False)

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        match event:
            case ConnectionOpened():
                self._open += 1
                self._total += 1
            case ConnectionClosed():
                self._open -= 1
                self._sent += event.sent
                self._received += event.received
            case Listening():
                self.listen.append(event.address)
            case _:
                pass

    def status(self) -> TrafficStatus:
        """Return the sums as they are now."""
        return TrafficStatus(open=self._open, total=self._total, sent=self._sent, received=self._received)


# Reads the profile anew, in a thread; what works but was hardly meant is told to the callable.
Load = Callable[[Callable[[str], None]], Profile]


@attrs.frozen(eq=False)
class ProxyChange:
    """A `Change` of a proxy that is ready to be made."""

    daemon: ProxyDaemon
    profile: Profile
    changes: Changes
    _ways: Preparation
    _opened: Sequence[Taken]
    _closed: Sequence[ListenAddress]

    @property
    def admin(self) -> ListenAddress | None:
        """See `Change.admin`."""
        return None if self.profile.admin is None else self.profile.admin.listen

    @property
    def drain(self) -> float:
        """See `Change.drain`."""
        return self.profile.limits.drain

    def commit(self) -> list[ListenAddress]:
        """See `Change.commit`."""
        return self.daemon.adopt(self.profile, self._ways, self._opened, self._closed)


class ProxyDaemon:
    """One profile, served. Run it with `session_proxy.supervision.service.run_service`.

    It is `Reloadable` where it knows how to *load* its profile.
    """

    def __init__(
        self,
        profile: Profile,
        services: Services,
        log: Log,
        metrics: Metrics,
        *,
        vital: frozenset[str] = frozenset(),
        hidden: frozenset[str] = frozenset(),
        load: Load | None = None,
    ) -> None:
        self.profile = profile
        # Told later, when the folder that it was looked up from may be gone.
        self._file = None if profile.file is None else str(profile.file.absolute())
        self.board = HealthBoard(profile, vital, hidden)
        self.traffic = Traffic()
        self._metrics = metrics
        self._consumers = (EventLog(log), metrics, self.board, self.traffic)
        self._services = attrs.evolve(services, notify=self.notify)
        self._log = log
        self._load = load
        self._ways: Ways | None = None
        self._entrances: Entrances | None = None

    def notify(self, event: Event) -> None:
        """Tell everybody who counts, logs or remembers."""
        for consume in self._consumers:
            consume(event)

    async def serve(self, stop: trio.Event, *, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        """Take the addresses, open the upstreams, then the front door.

        Returns when *stop* was set and the clients are gone.

        Raises:
          UpstreamStartError: a required upstream does not work.
          ListenError: an address cannot be listened on.

        """
        required = ",".join(
            name for name in self.profile.upstreams if self.profile.startup_of(name) == "required"
        )
        self._log.info("starting", profile=str(self.profile.file or "-"), required=required)
        self._summarise(self.profile, self.profile.upstreams)
        async with AsyncExitStack() as stack:
            # One that is started twice has to fail before it takes anything from the one that runs.
            taken = await take(self.profile.listen)
            for each in taken:
                stack.callback(each.close)
            self._ways = await stack.enter_async_context(open_ways(self.profile, self._services))
            self.board.attach(self._ways.dialer.health)
            await serve_front_door(
                self._ways.dialer,
                self.profile.listen,
                auth=self.profile.auth,
                limits=self.profile.limits,
                notify=self.notify,
                stop=stop,
                taken=taken,
                on_open=self._opened,
                task_status=task_status,
            )

    def _opened(self, entrances: Entrances) -> None:
        self._entrances = entrances

    def _summarise(self, profile: Profile, names: Iterable[str]) -> None:
        """Log what sessions of kind awg, of those *names*, are to look like."""
        for name in names:
            upstream = profile.upstreams[name]
            if isinstance(upstream, AwgUpstream):
                self._log.info("awg configuration", upstream=name, **session_summary(upstream))

    @asynccontextmanager
    async def prepare(self) -> AsyncGenerator[ProxyChange]:
        """See `Reloadable.prepare`.

        Raises:
          ReloadError: there is no file to read, or the proxy is still starting.
          ProfileError: the file is wrong.
          ListenError: an address that is new cannot be listened on.
          UpstreamStartError: an upstream that is new, or changed, and required does not work.

        """
        if self._load is None:
            raise ReloadError("it runs without a profile; there is nothing to read anew")
        if self._ways is None or self._entrances is None:
            raise ReloadError("it is still starting")
        profile = await read_anew(self._load, self._log)
        changes = compare(self.profile, profile)
        added, removed = replaced(self.profile.listen, profile.listen)
        _check_apart(added, removed)
        with ExitStack() as stack:
            taken = await take(added)
            for each in taken:
                stack.callback(each.close)
            self._summarise(profile, changes.coming)
            async with self._ways.prepare(profile, changes) as prepared:
                for each in taken:
                    start_listening(each.sockets)
                change = ProxyChange(self, profile, changes, prepared, taken, removed)
                yield change
                if self.profile is profile:
                    # They are the front door's now.
                    stack.pop_all()

    def adopt(
        self,
        profile: Profile,
        prepared: Preparation,
        opened: Sequence[Taken],
        closed: Sequence[ListenAddress],
    ) -> list[ListenAddress]:
        """Serve *profile* from now on; return the addresses that are listened on."""
        assert self._ways is not None, "it was prepared"
        assert self._entrances is not None, "it was prepared"
        self._ways.commit(prepared)
        self._entrances.door.change(profile.auth, profile.limits)
        for address in closed:
            self._entrances.close(address)
        for taken in opened:
            self._entrances.open(taken)
        self.profile = self.board.profile = profile
        bound = self._entrances.bound
        self.traffic.listen[:] = map(str, bound)
        return bound

    def obstacles(self) -> Mapping[str, str]:
        """Return why required upstreams cannot be used."""
        return {f"upstream {name}": reason for name, reason in self.board.obstacles().items()}

    def status(self) -> Mapping[str, object]:
        """Return a `ProxyStatus` as JSON values."""
        health = self.board.health()
        status = ProxyStatus(
            profile=self._file,
            connections=self.traffic.status(),
            upstreams={name: self._upstream_status(name, state) for name, state in health.items()},
        )
        return attrs.asdict(status)

    def _upstream_status(self, name: str, health: Health) -> UpstreamStatus:
        return UpstreamStatus(
            state=health.state.value,
            reason=health.reason,
            seconds=round(trio.current_time() - health.since, 3) if health.since else None,
            required=self.board.is_required(name),
            links=self.board.links.get(name, 0),
            details=dict(health.details),
        )

    def figures(self) -> AwgFigures:
        """Return the figures of every upstream of kind awg, as they are now."""
        if self._ways is None:
            return AwgFigures()
        transports = self._ways.dialer.transports.values()
        return total(one.figures() for one in transports if isinstance(one, AwgSource))

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        """Return the page ``/proxy.pac``: which destinations a browser should send here."""

        async def pac(request: HttpRequest) -> HttpAnswer:
            if not self.traffic.listen:
                return HttpAnswer.text("starting", HTTPStatus.SERVICE_UNAVAILABLE)
            proxy = reachable_address(self.traffic.listen[0], request.headers.get("host", ""))
            script = proxy_auto_config(self.profile.routes, self.profile.default, proxy)
            return HttpAnswer(HTTPStatus.OK, script.encode(), PAC_TYPE)

        return {("GET", "/proxy.pac"): pac}

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of this proxy."""
        return self._metrics.render(accept)


def _check_apart(added: Sequence[ListenAddress], removed: Sequence[ListenAddress]) -> None:
    """Raise `ListenError` where an address cannot be taken while another one is still listened on."""
    for address in added:
        for other in removed:
            if address.port and address.port == other.port:
                raise ListenError(
                    f"cannot listen on {address} while this process does on {other}, with the same port; "
                    "restart it, or go by way of another port"
                )


def reachable_address(listen: str, asked: str) -> str:
    """Return *listen* as a browser can use it: a wildcard becomes the host *asked* (a ``Host`` header)."""
    host, _, port = listen.rpartition(":")
    if host.strip("[]") not in WILDCARDS:
        return listen
    # A Host header that is no plain authority would end up inside the script.
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?", asked)
    return f"{found[1] if found else 'localhost'}:{port}"
