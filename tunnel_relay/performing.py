"""Does requests: connects to the target, sends the payload and the end, and reads what it says until its end."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping

import attrs
import trio

from tunnel_relay.errors import RelayError
from tunnel_relay.protocol.requests import MAX_DETAIL, Request, Response, Status
from tunnel_relay.record import Outcome

READ = 64 * 1024

# A payload that the way to the target takes whole, whether the target listens or not.
SHORT = 4 * 1024

IPV4 = 4

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN})


class RequestNotDoneError(RelayError):
    """A target was not reached: *status* says why; nothing was sent to it."""

    def __init__(self, status: Status, detail: str) -> None:
        self.status = status
        super().__init__(detail)


Connect = Callable[[str], Awaitable[trio.abc.HalfCloseableStream]]
"""Connects to a target, or raises `RequestNotDoneError`."""


async def open_tcp(host: str, port: int) -> trio.SocketStream:
    """Connect to *host*. An address costs a fraction of what a name does: there is nothing to look up, or to choose.

    Raises:
      OSError: that cannot be done.

    """
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return await trio.open_tcp_stream(host, port)
    sock = trio.socket.socket(socket.AF_INET if version == IPV4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        await sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def connect_tcp(host: str, port: int) -> trio.abc.HalfCloseableStream:
    """Connect to *host*.

    Raises:
      RequestNotDoneError: that cannot be done.

    """
    try:
        return await open_tcp(host, port)
    except OSError as exc:
        raise not_reached(exc) from exc
    except UnicodeError as exc:
        raise RequestNotDoneError(Status.UNREACHABLE, "the target's name cannot be one") from exc


def to_services(services: Mapping[str, tuple[str, int]]) -> Connect:
    """Return what connects to *services*, host and port by name, and to nothing else."""

    async def connect(target: str) -> trio.abc.HalfCloseableStream:
        service = services.get(target)
        if service is None:
            raise RequestNotDoneError(Status.NO_SUCH_TARGET, f"no service {target!r} is offered")
        return await connect_tcp(*service)

    return connect


async def perform(request: Request, connect: Connect) -> Outcome:
    """Return what has become of *request*; no failure of the target is raised.

    A response that is not DONE has what the target had said until then.
    """
    work = _Work(request, bytearray())
    with trio.move_on_after(request.time) as scope:
        await work.run(connect)
    if scope.cancelled_caught and work.status is Status.DONE:
        work.fail(Status.TIMED_OUT, f"the target has not done with it after {request.time:g} s")
    response = Response(
        id=request.id, status=work.status, payload=bytes(work.said), detail=work.detail[:MAX_DETAIL]
    )
    return Outcome(response, work.connected)


@attrs.define(eq=False)
class _Work:
    request: Request
    said: bytearray
    connected: bool = False
    status: Status = Status.DONE
    detail: str = ""

    def fail(self, status: Status, detail: str) -> None:
        """Note what went wrong first."""
        if self.status is Status.DONE:
            self.status, self.detail = status, detail

    async def run(self, connect: Connect) -> None:
        """Do it all; what goes wrong is noted."""
        try:
            stream = await connect(self.request.target)
        except RequestNotDoneError as exc:
            self.fail(exc.status, str(exc))
            return
        self.connected = True
        try:
            if len(self.request.payload) <= SHORT:
                await self._send(stream)
                await self._read(stream)
                return
            async with trio.open_nursery() as nursery:
                # A target may say much before it has heard all.
                nursery.start_soon(self._send, stream)
                if not await self._read(stream):
                    nursery.cancel_scope.cancel()
        finally:
            # What is over needs no farewell, and one that fails needs none either.
            if isinstance(stream, trio.SocketStream):
                stream.socket.close()
            else:
                await trio.aclose_forcefully(stream)

    async def _send(self, stream: trio.abc.HalfCloseableStream) -> None:
        try:
            await stream.send_all(self.request.payload)
            await stream.send_eof()
        except trio.BrokenResourceError:
            # What it has said until its end is read all the same.
            self.fail(Status.BROKEN, "the target did not take all of it")

    async def _read(self, stream: trio.abc.HalfCloseableStream) -> bool:
        """Read to the end; return whether it was one."""
        while True:
            try:
                data = await stream.receive_some(READ)
            except trio.BrokenResourceError:
                self.fail(Status.BROKEN, "the target broke the connection")
                return False
            if not data:
                return True
            room = self.request.most - len(self.said)
            self.said += data[:room]
            if len(data) > room:
                self.fail(Status.TOO_LONG, f"the target said more than {self.request.most} bytes")
                return False


def not_reached(exc: OSError) -> RequestNotDoneError:
    """Return why a connection did not come about; of several attempts, what says most of the target."""
    causes = list(_causes(exc))
    for cause in causes:
        if isinstance(cause, ConnectionRefusedError):
            return RequestNotDoneError(Status.REFUSED, "the target refused the connection")
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return RequestNotDoneError(Status.UNREACHABLE, "the target's name is not known")
        if isinstance(cause, TimeoutError):
            return RequestNotDoneError(Status.TIMED_OUT, "the target did not answer")
        if cause.errno in _UNREACHABLE:
            return RequestNotDoneError(Status.UNREACHABLE, "the target cannot be reached")
    return RequestNotDoneError(Status.FAILED, str(exc))


def _causes(exc: BaseException) -> Iterator[OSError]:
    """Yield the errors that *exc* sums up: trio has one for each address that was tried."""
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            yield from _causes(each)  # pyright: ignore[reportUnknownArgumentType]
        return
    if exc.__cause__ is not None:
        yield from _causes(exc.__cause__)
    if isinstance(exc, OSError):
        yield exc
