"""One of several processes that serve a relay together, as it sees the one that has started it: its fleet.

They speak over Unix sockets in a folder that nobody else gets into. There a worker finds its orders, and the metrics of
all; and there it has its own control socket, and takes the links of the other workers.
"""

from __future__ import annotations

import os
import pickle
from http import HTTPStatus
from pathlib import Path

import attrs
import trio

from session_proxy.errors import ControlError
from session_proxy.observability.fleet_metrics import content_type_of
from session_proxy.observability.http import HttpAnswer, HttpRequest
from session_proxy.observability.log_settings import LogSettings
from session_proxy.observability.logging import Log
from session_proxy.profile.relay_model import RelayServer
from session_proxy.supervision.control_client import ask
from session_proxy.supervision.lifecycle import Lifecycle

# What the fleet's own socket is called, and what it answers there.
FLEET = "fleet.sock"
ORDERS = "/orders"
METRICS = "/metrics"


@attrs.frozen(kw_only=True)
class Orders:
    """What the workers of a fleet are to do.

    Attributes:
      server: The whole file; see `session_proxy.profile.relay_shares.share_of`.
      log: How they log, to the stderr that they share.
      sockets: Descriptors of the sockets that all of them accept clients from.

    """

    server: RelayServer
    log: LogSettings
    sockets: tuple[int, ...]

    def encode(self) -> bytes:
        """Return them as they travel to a process of the same program."""
        return pickle.dumps(self)


@attrs.frozen
class Post:
    """Where worker *number*, counted from 1, stands: the sockets are in *folder*."""

    folder: Path
    number: int

    @property
    def control(self) -> Path:
        """Its control socket."""
        return self.folder / f"{self.number}.sock"

    @property
    def peers(self) -> Path:
        """Where the other workers come in."""
        return self.folder / f"{self.number}.peers.sock"

    async def orders(self) -> Orders:
        """Return what is to be done now; raises `ControlError`."""
        orders: object = pickle.loads(await ask(self.folder / FLEET, "GET", ORDERS))  # noqa: S301  # our own
        assert isinstance(orders, Orders)
        return orders

    async def metrics(self, request: HttpRequest) -> HttpAnswer:
        """Answer with the metrics of all workers."""
        accept = request.headers.get("accept", "")
        try:
            body = await ask(self.folder / FLEET, "GET", METRICS, accept=accept)
        except ControlError as exc:
            return HttpAnswer.text(str(exc), HTTPStatus.SERVICE_UNAVAILABLE)
        return HttpAnswer(HTTPStatus.OK, body, content_type_of(accept))


async def outlive_nobody(stdin: int, lifecycle: Lifecycle, log: Log) -> None:
    """End *lifecycle* at once when the other end of *stdin* is closed: who has started this process is gone."""
    async with trio.lowlevel.FdStream(os.dup(stdin)) as stream:
        async for _ in stream:
            pass
    log.debug("worker", message="is told to end at once")
    lifecycle.drain()
    lifecycle.cut.set()
