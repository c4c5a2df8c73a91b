"""Several processes that serve one ``relay.toml``, and this one, which serves nobody: it has the file and the name.

It opens the sockets that all of them accept clients from, keeps them running, and speaks for all of them: to signals,
on the admin address and on the control socket. What users have and do the workers agree about in the store, and
sessions between clients of one and agents of another are led over links between the two, as with servers elsewhere.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import attrs
import cattrs
import trio

from session_proxy.errors import ControlError, ListenError
from session_proxy.inbound.sockets import open_listeners, socket_name
from session_proxy.observability.fleet_metrics import FleetMetrics
from session_proxy.observability.http import HttpAnswer, HttpRequest, serve_http
from session_proxy.observability.log_settings import LogSettings
from session_proxy.observability.logging import Log
from session_proxy.profile.loading import Warn
from session_proxy.profile.model import ListenAddress
from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision.control_client import ask, ask_object
from session_proxy.supervision.control_socket import open_control_socket
from session_proxy.supervision.fleet_view import WorkerView, fleet_status, read_status
from session_proxy.supervision.relay_pages import METRICS_PATH, Routes, health
from session_proxy.supervision.relay_reload import RelayChange, RelayFile, read_relay
from session_proxy.supervision.relay_worker import FLEET, METRICS, ORDERS, Orders, Post
from session_proxy.supervision.reload import ReloadReport
from session_proxy.supervision.worker_process import WorkerProcess
from tunnel_relay.background import open_background
from tunnel_relay.protocol.upgrade import HEALTH_PATH

# The program of a worker; it is told where it stands: the folder, and its number. Modules of ours are not looked for in
# the folder that somebody happens to be in.
PROGRAM = (sys.executable, "-P", "-m", "session_proxy.cli.relay_worker")

# Seconds that a worker may take to say how it is, and to take over a file; who asks for that waits for a minute or so.
PATIENCE = 2.0
TAKING_OVER = 8.0


@attrs.define(eq=False)
class RelayFleet:
    """See the module. Run it with `session_proxy.supervision.service.run_service`.

    Attributes:
      config: The file.
      log: Where what happens is told; and how the workers are to log.
      folder: Where they have their sockets.
      load: Reads the file anew, and tells what in it was probably not meant.

    """

    config: RelayServer
    log: Log
    log_settings: LogSettings
    folder: Path
    load: Callable[[Warn], RelayServer]
    _sockets: list[socket.socket] = attrs.field(factory=list[socket.socket], init=False)
    _addresses: list[ListenAddress] = attrs.field(factory=list[ListenAddress], init=False)
    _workers: dict[int, WorkerProcess] = attrs.field(factory=dict[int, WorkerProcess], init=False)
    _views: dict[int, WorkerView] = attrs.field(factory=dict[int, WorkerView], init=False)
    _metrics: FleetMetrics = attrs.field(factory=FleetMetrics, init=False)

    async def serve(self, stop: trio.Event, *, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        """Keep the workers running; when *stop* is set, ask them to drain, and return when they have.

        Raises:
          ListenError: an address cannot be listened on, or there is no place for the workers' sockets.
          WorkerStartError: a worker cannot start.

        """
        config = self.config
        self.log.info("starting", file=str(config.file or "-"), workers=config.workers)
        self._sockets = await open_listeners(config.listen)
        self._addresses = [socket_name(sock) for sock in self._sockets]
        try:
            with _private_folder(self.folder) as listener:
                async with open_background() as background:
                    await background.start(serve_http, self._pages_for_workers(), [listener])
                    await self._run_workers(stop, task_status)
        finally:
            self._close()

    async def _run_workers(
        self, stop: trio.Event, task_status: trio.TaskStatus[Sequence[ListenAddress]]
    ) -> None:
        descriptors = [sock.fileno() for sock in self._sockets]
        numbers = range(1, self.config.workers + 1)
        self._workers = {
            number: WorkerProcess(number, (*PROGRAM, str(self.folder), str(number)), descriptors, self.log)
            for number in numbers
        }
        async with open_background() as keeping:
            for worker in self._workers.values():
                keeping.start_soon(worker.run, stop)
            for worker in self._workers.values():
                await worker.settled.wait()
                if worker.failure is not None:
                    raise worker.failure
            task_status.started(self._addresses)
            await stop.wait()
            # Whoever comes now is to find another server, and not to wait here.
            self._close()
            for worker in self._workers.values():
                await worker.over.wait()

    def _close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _pages_for_workers(self) -> Routes:
        async def orders(_request: HttpRequest) -> HttpAnswer:
            sockets = tuple(sock.fileno() for sock in self._sockets)
            body = Orders(server=self.config, log=self.log_settings, sockets=sockets).encode()
            return HttpAnswer(HTTPStatus.OK, body, "application/octet-stream")

        return {("GET", ORDERS): orders, ("GET", METRICS): self._show_metrics}

    async def _show_metrics(self, request: HttpRequest) -> HttpAnswer:
        await self.gather()
        return HttpAnswer(HTTPStatus.OK, *self.render_metrics(request.headers.get("accept", "")))

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncGenerator[RelayChange]:
        """See `session_proxy.supervision.reload.Reloadable.prepare`.

        Raises:
          ReloadError: some of what changed cannot be taken over.
          ProfileError: the file is wrong.

        """
        read = await read_relay(self.config, self.load, self.log)
        yield RelayChange(self, read)
        if self.config is read.server:
            async with trio.open_nursery() as nursery:
                for worker in self._workers.values():
                    nursery.start_soon(self._have_it_take_over, worker)

    def adopt(self, read: RelayFile) -> Sequence[ListenAddress]:
        """Have the workers serve what was *read*, those that are there and those to come."""
        self.config = read.server
        return self._addresses

    async def _have_it_take_over(self, worker: WorkerProcess) -> None:
        """Have *worker* take over our file. Nothing is wrong with that; one that cannot all the same is replaced."""
        reason = f"no answer in {TAKING_OVER:g} s"
        with trio.move_on_after(TAKING_OVER):
            try:
                answer = await ask_object(Post(self.folder, worker.number).control, "POST", "/reload")
                report = cattrs.Converter().structure(answer, ReloadReport)
                if report.done:
                    return
                reason = "; ".join(report.problems)
            except ControlError as exc:
                reason = str(exc)
        if worker.pid is not None:
            self.log.warning("worker replaced", worker=worker.number, message=f"not reloaded: {reason}")
            worker.replace()

    async def gather(self) -> None:
        """See `session_proxy.supervision.service.Gathering`."""
        async with trio.open_nursery() as nursery:
            for worker in self._workers.values():
                nursery.start_soon(self._look_at, worker)

    async def _look_at(self, worker: WorkerProcess) -> None:
        view = WorkerView(pid=worker.pid, restarts=worker.restarts)
        path = Post(self.folder, worker.number).control
        with trio.move_on_after(PATIENCE), contextlib.suppress(ControlError):
            said = read_status(await ask_object(path, "GET", "/status"))
            metrics = await ask(path, "GET", METRICS, accept="text/plain")
            view = attrs.evolve(view, said=said, metrics=metrics.decode())
        self._views[worker.number] = view

    def obstacles(self) -> Mapping[str, str]:
        """Return why some clients would not be served now: one that is there, and does not serve; or that none is."""
        found = {_name(number): view.obstacle for number, view in self._views.items() if view.obstacle}
        if self._views and all(view.is_away for view in self._views.values()):
            found["workers"] = "none of them is there"
        return found

    def handicaps(self) -> Mapping[str, str]:
        """Return what does not work now, though clients are served: who is not there, and what workers say."""
        return {_name(number): view.handicap for number, view in self._views.items() if view.handicap}

    def status(self) -> Mapping[str, object]:
        """Return a `RelayServerStatus` as JSON values."""
        return attrs.asdict(fleet_status(self.config, self._views))

    def pages(self) -> Routes:
        """Return health and metrics under the names that they have on the public port."""
        return {("GET", HEALTH_PATH): health, ("GET", METRICS_PATH): self._show_metrics}

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of all workers, and of this process."""
        figures = {number: view.figures for number, view in sorted(self._views.items())}
        return self._metrics.render(figures, accept)


def _name(worker: int) -> str:
    return f"worker {worker}"


@contextlib.contextmanager
def _private_folder(folder: Path) -> Generator[trio.SocketListener]:
    """Listen in a folder for sockets, which is gone afterwards with all of them.

    Raises:
      ListenError: it cannot be made.

    """
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(open_control_socket(folder / FLEET))
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            fix = "workers need a folder for their sockets: set XDG_RUNTIME_DIR to one of your own"
            raise ListenError(f"{folder}: {reason}; {fix}") from exc
        # Workers that were killed have left theirs.
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield listener
