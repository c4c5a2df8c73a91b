"""The shell that every daemon runs in: signals, admin pages, control socket, readiness, drain.

A `Daemon` says what it does; `run_service` gives it a life. Each piece stands alone (`obey_signals`,
`open_control_socket`, `admin_routes`, `serve_http`, `Lifecycle`), for programs that need another arrangement.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs
import trio

from session_proxy.errors import ControlError, ExitCode, NameTakenError
from session_proxy.observability.admin import Readiness, admin_routes
from session_proxy.observability.http import Handler, HttpAnswer, HttpLimits, HttpRequest, serve_http
from session_proxy.observability.logging import Log
from session_proxy.observability.task_tree import render_task_tree
from session_proxy.profile.model import ListenAddress
from session_proxy.supervision.admin_port import AdminPort
from session_proxy.supervision.control_client import ask_object
from session_proxy.supervision.control_socket import open_control_socket
from session_proxy.supervision.lifecycle import Lifecycle, Phase
from session_proxy.supervision.reload import LIMIT, Change, Reloader
from session_proxy.supervision.signals import obey_signals
from session_proxy.supervision.status import ServiceStatus, file_of
from tunnel_relay.background import open_background

# What a daemon may take to close its transports once its connections are gone: sessions are ended at AWS.
CLOSING = 15.0

# What is asked over the control socket is answered at once, but for a reload.
CONTROL_LIMITS = HttpLimits(answer=LIMIT + 10.0)

# A service answers in milliseconds; one that does not is named without its file.
PATIENCE = 2.0


class Daemon(Protocol):
    """What the shell runs."""

    async def serve(self, stop: trio.Event, *, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        """Serve until *stop* is set, then finish what is under way, in bounded time, and return.

        Reports the addresses on which clients are accepted, when they are.
        """
        ...

    def obstacles(self) -> Mapping[str, str]:
        """Return, by part, why clients would not be served now; empty where they would."""
        ...

    def status(self) -> Mapping[str, object]:
        """Return what ``sproxy status`` shows beside what the shell knows; JSON values."""
        ...

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        """Return what the admin address serves beside health and metrics."""
        ...

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, as an ``Accept`` header prefers them."""
        ...


@runtime_checkable
class Handicapped(Protocol):
    """A `Daemon` that may serve clients though something does not work; to be told, and no reason to go elsewhere."""

    def handicaps(self) -> Mapping[str, str]:
        """Return, by part, what does not work."""
        ...


@runtime_checkable
class Gathering(Protocol):
    """A `Daemon` that asks others for what it tells of itself."""

    async def gather(self) -> None:
        """Ask them anew, in bounded time, before anything is told."""
        ...


@attrs.frozen(kw_only=True)
class ServiceSettings:
    """How a daemon is run. *drain* is how many seconds it may take to finish what is under way.

    Without *admin* there is no admin address, without *control* no control socket.
    """

    name: str
    drain: float
    admin: ListenAddress | None = None
    control: Path | None = None


@attrs.define(kw_only=True, eq=False)
class Shell:
    """One running daemon, seen from outside: what the admin pages and the control socket answer from."""

    daemon: Daemon
    settings: ServiceSettings
    lifecycle: Lifecycle
    started: float
    admin: tuple[str, ...] = ()

    def adopt(self, change: Change) -> None:
        """Have the settings of *change*, which was made, hold from now on."""
        self.settings = attrs.evolve(self.settings, drain=change.drain, admin=change.admin)

    def readiness(self) -> Readiness:
        """Return whether clients are served: they are accepted, and every required part works.

        What does not work beside that is told all the same.
        """
        handicaps = self.daemon.handicaps() if isinstance(self.daemon, Handicapped) else dict[str, str]()
        reasons = dict(self.daemon.obstacles())
        if self.lifecycle.phase is not Phase.READY:
            reasons = {self.settings.name: self.lifecycle.phase.value, **reasons}
        return Readiness(not reasons, {**reasons, **handicaps})

    def status(self) -> dict[str, object]:
        """Return everything that ``sproxy status --json`` prints."""
        readiness = self.readiness()
        status = ServiceStatus(
            name=self.settings.name,
            pid=os.getpid(),
            version=version("session-proxy"),
            state=self.lifecycle.phase.value,
            ready=readiness.ready,
            reasons=dict(readiness.reasons),
            uptime=round(trio.current_time() - self.started, 3),
            listen=list(self.lifecycle.listen),
            admin=list(self.admin),
        )
        return {**attrs.asdict(status), **self.daemon.status()}

    def admin_pages(self) -> dict[tuple[str, str], Handler]:
        """Return what anybody who reaches the admin address may ask."""
        pages = admin_routes(self.readiness, self.daemon.render_metrics)
        for key in (("GET", "/readyz"), ("GET", "/metrics")):
            pages[key] = self._gathered(pages[key])
        return {**pages, **self.daemon.pages()}

    def _gathered(self, handler: Handler) -> Handler:
        """Return *handler*, which tells what there is to tell when it is asked."""
        daemon = self.daemon
        if not isinstance(daemon, Gathering):
            return handler

        async def answer(request: HttpRequest) -> HttpAnswer:
            await daemon.gather()
            return await handler(request)

        return answer

    def control_pages(self, reloader: Reloader) -> dict[tuple[str, str], Handler]:
        """Return what the owner of the control socket may ask: the admin pages, status, drain and reload."""

        async def status(_request: HttpRequest) -> HttpAnswer:
            return HttpAnswer.json(self.status())

        async def drain(_request: HttpRequest) -> HttpAnswer:
            self.lifecycle.drain()
            return HttpAnswer.json({"state": self.lifecycle.phase.value, "limit": self.settings.drain})

        async def reload(_request: HttpRequest) -> HttpAnswer:
            return HttpAnswer.json(attrs.asdict(await reloader.reload()))

        return {
            **self.admin_pages(),
            ("GET", "/status"): self._gathered(status),
            ("POST", "/drain"): drain,
            ("POST", "/reload"): reload,
        }


async def run_service(
    daemon: Daemon,
    settings: ServiceSettings,
    lifecycle: Lifecycle,
    *,
    log: Log,
    dump: Callable[[Sequence[str]], None],
    on_ready: Callable[[], None] = lambda: None,
) -> ExitCode:
    """Run *daemon* until it has drained; returns what to exit with.

    Admin address and control socket answer from the first moment, so that a start that hangs can be looked
    into. *dump* gets the task tree, line by line, on SIGUSR1; *on_ready* is called when clients are accepted.

    Raises:
      NameTakenError: the control socket belongs to a running process.
      ListenError: the admin address is taken.
      SessionProxyError: what *daemon* raised.

    """
    root = trio.lowlevel.current_root_task()
    assert root is not None, "Trio runs"
    shell = Shell(daemon=daemon, settings=settings, lifecycle=lifecycle, started=trio.current_time())
    async with open_background() as background, AsyncExitStack() as stack:
        port = AdminPort(background, shell.admin_pages)

        def adopt(change: Change) -> None:
            shell.adopt(change)
            shell.admin = port.bound

        reloader = Reloader(settings.name, daemon, lifecycle, port, log, adopt)

        def reload() -> None:
            background.start_soon(reloader.reload)

        await background.start(obey_signals, lifecycle, lambda: dump(render_task_tree(root)), reload)
        await port.open(settings.admin)
        shell.admin = port.bound
        if port.bound:
            log.debug("admin", listen=",".join(shell.admin))
        if settings.control is not None:
            await stack.enter_async_context(_serve_control(shell, reloader, settings.control, log))
        await _serve_until_drained(shell, log, on_ready)
    log.info("stopped")
    return lifecycle.exit_code


@asynccontextmanager
async def _serve_control(shell: Shell, reloader: Reloader, path: Path, log: Log) -> AsyncGenerator[None]:
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(open_control_socket(path))
        except NameTakenError as exc:
            raise NameTakenError(exc.name, exc.owner, await _find_file(path)) from None
        except OSError as exc:
            # A container's file system may be read-only. Signals and the admin address still work there.
            log.warning("no control socket", path=str(path), reason=exc.strerror or str(exc))
            yield
            return
        async with open_background() as nursery:
            serve = partial(serve_http, shell.control_pages(reloader), [listener], limits=CONTROL_LIMITS)
            await nursery.start(serve)
            yield


async def _find_file(path: Path) -> Path | None:
    """Return the file that whoever listens at the control socket *path* runs, if it says so in time."""
    with trio.move_on_after(PATIENCE), contextlib.suppress(ControlError):
        return file_of(await ask_object(path, "GET", "/status"))
    return None


async def _serve_until_drained(shell: Shell, log: Log, on_ready: Callable[[], None]) -> None:
    lifecycle = shell.lifecycle
    done = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        await shell.daemon.serve(lifecycle.stop, task_status=task_status)
        done.set()

    async with open_background() as watching:
        with trio.CancelScope() as life:
            watching.start_soon(_enforce, shell, life, log)
            async with open_background() as nursery:
                lifecycle.become_ready([str(address) for address in await nursery.start(serve)])
                on_ready()
                addresses = {"listen": ",".join(lifecycle.listen), "admin": ",".join(shell.admin)}
                log.info("ready", name=shell.settings.name, pid=os.getpid(), **addresses)
                await done.wait()


async def _enforce(shell: Shell, life: trio.CancelScope, log: Log) -> None:
    """End *life* when the daemon takes longer to drain than it may, or is to end at once."""
    await shell.lifecycle.stop.wait()
    limit = shell.settings.drain
    log.info("draining", limit=limit)
    with trio.move_on_after(limit + CLOSING):
        await shell.lifecycle.cut.wait()
    life.cancel()
