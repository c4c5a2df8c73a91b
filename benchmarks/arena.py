"""Where contestants meet: the load generator and the targets that they all share."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from benchmarks.processes import Usage, conversation, is_alive
from benchmarks.wire import Address, Credentials

# Every command is bounded by its size; one that takes longer than this hangs.
PATIENCE = 60.0
START_PATIENCE = 40.0


class FailedError(Exception):
    """A contestant did not do what was asked of it."""


@attrs.define(eq=False)
class Load:
    """A load generator: it obeys one command at a time; one that did not answer once is asked no more."""

    _process: trio.Process
    _pending: bytes = b""
    _hangs: bool = False

    async def exchange(self, line: str) -> dict[str, float]:
        """Say *line*, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._hangs:
            raise FailedError("it hangs")
        with trio.move_on_after(PATIENCE) as patience:
            try:
                await self._process.stdin.send_all(line.encode() + b"\n")
            except trio.BrokenResourceError as exc:
                raise FailedError("the load generator ended") from exc
            while b"\n" not in self._pending:
                piece = await self._process.stdout.receive_some()
                if not piece:
                    raise FailedError("the load generator ended")
                self._pending += piece
        if patience.cancelled_caught:
            self._hangs = True
            raise FailedError(f"no answer within {PATIENCE:.0f} s")
        answer, _, self._pending = self._pending.partition(b"\n")
        return json.loads(answer)


@attrs.frozen
class Targets:
    """Where connections end: at what `benchmarks.target` serves."""

    bulk: Address
    greeter: Address


@attrs.frozen
class Contestant:
    """A running proxy: its SOCKS5 *address* (`None`: no proxy at all) and the processes it consists of.

    *credentials* are what it asks for. What is no proxy has *targets* of its own, or a *load* generator that is
    its client as well.
    """

    name: str
    address: Address | None
    roots: tuple[int, ...] = ()
    targets: Targets | None = None
    load: Load | None = None
    credentials: Credentials | None = attrs.field(default=None, repr=False)

    def alive(self) -> bool:
        """Return whether its processes have not ended."""
        return all(is_alive(root) for root in self.roots)

    def usage(self) -> Usage:
        """Return what its processes have used so far."""
        return Usage.of(self.roots)


@attrs.define(eq=False)
class Arena:
    """The load generator and the targets of those who have none of their own."""

    targets: Targets
    load: Load

    async def download(
        self, contestant: Contestant, size: int, streams: int = 1, *, checked: bool = False
    ) -> float:
        """Move *size* bytes from the target; returns the seconds it took."""
        answer = await self._ask(contestant, do="download", size=size, streams=streams, checked=checked)
        return answer["seconds"]

    async def upload(
        self, contestant: Contestant, size: int, streams: int = 1, *, checked: bool = False
    ) -> float:
        """Move *size* bytes to the target; returns the seconds until all had arrived."""
        answer = await self._ask(contestant, do="upload", size=size, streams=streams, checked=checked)
        return answer["seconds"]

    async def ping(self, contestant: Contestant, count: int) -> dict[str, float]:
        """Return the percentiles (p50, p95, p99) of *count* round trips of 64 bytes, in microseconds."""
        return await self._ask(contestant, do="ping", count=count)

    async def connect_rate(self, contestant: Contestant, count: int) -> float:
        """Return connections per second, to the first byte from the target."""
        answer = await self._ask(contestant, greeter=True, do="connect_rate", count=count)
        return answer["count"] / answer["seconds"]

    @asynccontextmanager
    async def held(self, contestant: Contestant, count: int) -> AsyncGenerator[None]:
        """Keep *count* idle connections open for the block."""
        await self._ask(contestant, do="hold", count=count)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self._load_of(contestant).exchange("release")

    async def wait_ready(self, contestant: Contestant) -> None:
        """Return once *contestant* carries a round trip; raises `FailedError` if it never does."""
        with trio.move_on_after(START_PATIENCE):
            while contestant.alive():
                try:
                    await self.ping(contestant, 3)
                except FailedError:
                    await trio.sleep(0.1)
                else:
                    return
            raise FailedError(f"{contestant.name} ended at once")
        raise FailedError(f"{contestant.name} carried nothing within {START_PATIENCE:.0f} s of its start")

    async def _ask(
        self, contestant: Contestant, *, greeter: bool = False, **command: object
    ) -> dict[str, float]:
        targets = contestant.targets or self.targets
        target = targets.greeter if greeter else targets.bulk
        line = json.dumps(
            {
                **command,
                "proxy": contestant.address,
                "credentials": contestant.credentials,
                "target": target,
            }
        )
        try:
            answer = await self._load_of(contestant).exchange(line)
        except FailedError as exc:
            raise FailedError(f"{contestant.name}, {command['do']}: {exc}") from exc
        if "error" in answer:
            raise FailedError(f"{contestant.name}, {command['do']}: {answer['error']}")
        return answer

    def _load_of(self, contestant: Contestant) -> Load:
        return contestant.load or self.load


@asynccontextmanager
async def open_targets(within: Sequence[str] = (), host: str = "127.0.0.1") -> AsyncGenerator[Targets]:
    """Start the targets for the block, at *host*; *within* is the command that runs a program there."""
    async with AsyncExitStack() as stack:
        ports: list[int] = []
        for kind in ("bulk", "greeter"):
            target = await stack.enter_async_context(
                conversation([*within, sys.executable, "-m", "benchmarks.target", kind, host])
            )
            assert target.stdout is not None
            ports.append(int(await target.stdout.receive_some()))
        yield Targets((host, ports[0]), (host, ports[1]))


@asynccontextmanager
async def open_arena() -> AsyncGenerator[Arena]:
    """Start the load generator and the targets for the block."""
    async with (
        open_targets() as targets,
        conversation([sys.executable, "-m", "benchmarks.load"]) as load,
    ):
        yield Arena(targets, Load(load))
