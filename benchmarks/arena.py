"""Where contestants meet: the load generator and the targets that they all share."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from benchmarks.processes import Usage, conversation, is_alive
from benchmarks.wire import Address

# Every command is bounded by its size; one that takes longer than this hangs.
PATIENCE = 180.0
START_PATIENCE = 40.0


class FailedError(Exception):
    """A contestant did not do what was asked of it."""


@attrs.frozen
class Contestant:
    """A running proxy: its SOCKS5 *address* (`None`: no proxy at all) and the processes it consists of."""

    name: str
    address: Address | None
    roots: tuple[int, ...] = ()

    def alive(self) -> bool:
        """Return whether its processes have not ended."""
        return all(is_alive(root) for root in self.roots)

    def usage(self) -> Usage:
        """Return what its processes have used so far."""
        return Usage.of(self.roots)


@attrs.define(eq=False)
class Arena:
    """The load generator, obeying one command at a time, and the addresses of the targets."""

    bulk: Address
    greeter: Address
    _load: trio.Process
    _pending: bytes = b""

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
        """Return the percentiles (p50, p99) of *count* round trips of 64 bytes, in microseconds."""
        return await self._ask(contestant, do="ping", count=count)

    async def connect_rate(self, contestant: Contestant, count: int) -> float:
        """Return connections per second, to the first byte from the target."""
        answer = await self._ask(contestant, self.greeter, do="connect_rate", count=count)
        return answer["count"] / answer["seconds"]

    @asynccontextmanager
    async def held(self, contestant: Contestant, count: int) -> AsyncGenerator[None]:
        """Keep *count* idle connections open for the block."""
        await self._ask(contestant, do="hold", count=count)
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self._exchange("release")

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
        self, contestant: Contestant, target: Address | None = None, **command: object
    ) -> dict[str, float]:
        line = json.dumps({**command, "proxy": contestant.address, "target": target or self.bulk})
        answer = await self._exchange(line)
        if "error" in answer:
            raise FailedError(f"{contestant.name}, {command['do']}: {answer['error']}")
        return answer

    async def _exchange(self, line: str) -> dict[str, float]:
        assert self._load.stdin is not None
        assert self._load.stdout is not None
        with trio.fail_after(PATIENCE):
            await self._load.stdin.send_all(line.encode() + b"\n")
            while b"\n" not in self._pending:
                piece = await self._load.stdout.receive_some()
                if not piece:
                    raise FailedError("the load generator ended")
                self._pending += piece
        answer, _, self._pending = self._pending.partition(b"\n")
        return json.loads(answer)


@asynccontextmanager
async def open_arena() -> AsyncGenerator[Arena]:
    """Start the load generator and the targets for the block."""
    async with AsyncExitStack() as stack:
        ports: list[int] = []
        for kind in ("bulk", "greeter"):
            target = await stack.enter_async_context(
                conversation([sys.executable, "-m", "benchmarks.target", kind])
            )
            assert target.stdout is not None
            ports.append(int(await target.stdout.receive_some()))
        load = await stack.enter_async_context(conversation([sys.executable, "-m", "benchmarks.load"]))
        yield Arena(("127.0.0.1", ports[0]), ("127.0.0.1", ports[1]), load)
