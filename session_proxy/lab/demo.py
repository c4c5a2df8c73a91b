"""Everything that ``sproxy demo`` shows: the lab, a front door, and every transport between them.

All in this process and on loopback: no account, no configuration. Bytes take the way that a user's do,
through the SOCKS5 port and the routes, and each is compared with what was sent.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from session_proxy.errors import SessionProxyError
from session_proxy.events import Event, UpstreamUp
from session_proxy.inbound.listener import serve_front_door
from session_proxy.lab import probe
from session_proxy.lab.socks_client import connect_through
from session_proxy.lab.targets import Targets
from session_proxy.lab.world import LabSettings, World, open_world
from session_proxy.outbound.failover import open_dialer
from session_proxy.outbound.transport import Services
from session_proxy.profile.loading import load_profile

# Half of it goes down and half of it up.
AMOUNT = 64 << 20
PINGS = 50
# A transport that has not moved its bytes by then hangs; one that works takes seconds.
PATIENCE = 60.0


@attrs.frozen(kw_only=True)
class DemoRow:
    """What one transport did. *bytes* are the ones checked; *error* says why it is not *ok*.

    *setup* is the way from nothing to the first open connection, *latency* the median round trip of 64 bytes,
    both in seconds; *rate* is in bytes per second, over both directions.
    """

    transport: str
    ok: bool = False
    setup: float | None = None
    latency: float | None = None
    rate: float | None = None
    bytes: int = 0
    error: str = ""

    def as_json(self) -> dict[str, str | bool | float | int | None]:
        """Return the row with the keys and units that ``sproxy demo --json`` promises."""
        report: dict[str, str | bool | float | int | None] = {
            "transport": self.transport,
            "ok": self.ok,
            "setup_ms": None if self.setup is None else round(self.setup * 1e3, 3),
            "latency_ms": None if self.latency is None else round(self.latency * 1e3, 3),
            "mbytes_per_s": None if self.rate is None else round(self.rate / 1e6, 3),
            "bytes": self.bytes,
        }
        return report if self.ok else {**report, "error": self.error}


async def run_demo(show: Callable[[DemoRow], None], *, amount: int = AMOUNT) -> list[DemoRow]:
    """Move *amount* bytes through every transport; each row goes to *show* as it is there, and is returned.

    Raises:
      SessionProxyError: the lab or the front door did not start.

    """
    rows: list[DemoRow] = []
    probe.pattern_digest(amount - amount // 2)
    # A folder of its own per run: nothing of a user's is read or written, known hosts included.
    with tempfile.TemporaryDirectory(prefix="sproxy-demo-") as folder:
        async with open_world(Path(folder), LabSettings()) as world:
            setups: dict[str, float] = {}
            async with open_front_door(world, Path(folder), setups) as proxy:
                for transport, targets in world.targets.items():
                    rows.append(await try_transport(transport, proxy, targets, setups, amount))
                    show(rows[-1])
    return rows


@asynccontextmanager
async def open_front_door(world: World, folder: Path, setups: dict[str, float]) -> AsyncGenerator[str]:
    """Serve the profile of *world* for the block; yields its SOCKS address, and notes set-up times."""

    def note(event: Event) -> None:
        if isinstance(event, UpstreamUp):
            setups.setdefault(event.upstream, event.setup)

    environ = {**os.environ, **world.environ}
    profile = load_profile(world.profile, environ=environ)
    services = Services(notify=note, state_dir=folder, environ=environ)
    async with open_dialer(profile, services) as dialer, trio.open_nursery() as nursery:
        stop = trio.Event()
        serve = partial(
            serve_front_door,
            dialer,
            profile.listen,
            auth=profile.auth,
            # When it is to stop, its only client has left already.
            limits=attrs.evolve(profile.limits, drain=0),
            notify=note,
            stop=stop,
        )
        bound = await nursery.start(serve)
        yield str(bound[0])
        stop.set()


async def try_transport(
    transport: str, proxy: str, targets: Targets, setups: Mapping[str, float], amount: int
) -> DemoRow:
    """Return what *transport* does between *proxy* and *targets*; never raises for what it does wrong."""
    row = DemoRow(transport=transport)
    try:
        with trio.fail_after(PATIENCE):
            began = trio.current_time()
            async with await connect_through(proxy, targets.http) as stream:
                setup = setups.get(transport, 0.0) + trio.current_time() - began
                row = attrs.evolve(row, setup=setup, bytes=await probe.fetch_page(stream))
            async with await connect_through(proxy, targets.echo) as stream:
                row = attrs.evolve(row, latency=await probe.ping(stream, PINGS))
            return await _move(row, proxy, targets.http, amount)
    except (SessionProxyError, OSError, trio.BrokenResourceError) as exc:
        return attrs.evolve(row, error=str(exc))
    except trio.TooSlowError:
        return attrs.evolve(row, error=f"not done after {PATIENCE:.0f} s")


async def _move(row: DemoRow, proxy: str, target: str, amount: int) -> DemoRow:
    began = trio.current_time()
    moved = 0
    for deed, length in ((probe.download, amount // 2), (probe.upload, amount - amount // 2)):
        async with await connect_through(proxy, target) as stream:
            moved += await deed(stream, length)
    rate = amount / (trio.current_time() - began)
    return attrs.evolve(row, ok=True, rate=rate, bytes=row.bytes + moved)
