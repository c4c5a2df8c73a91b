"""The control calls of AWS Session Manager, EC2 and Instance Connect, from Trio.

boto3 blocks, so every call runs in a worker thread; a cancelled caller does not wait for it. What such a call
would leave behind at AWS is a session nobody knows of: a session that starts after its caller has gone is
ended by the thread that started it.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

import attrs
import trio

from session_proxy.profile.model import Aws
from session_proxy.ssm.errors import AwsError, AwsUnreachableError, NoInstanceError, SessionEndedError
from session_proxy.ssm.session import AwsCredentials, StartedSession

if TYPE_CHECKING:
    from session_proxy.ssm.boto import Instance

T = TypeVar("T")

# Calls at one time and upstream. Growing from 1 to 8 sessions at once needs 7, and AWS throttles StartSession
# long before that.
THREADS = 8

# Ending sessions has threads of its own: it must not queue behind calls that are stuck.
CLOSING_THREADS = 4

# How long a cancelled start is waited for, so that its session can be ended before the process goes away.
ABANDON_LIMIT = 5.0


class Clients(Protocol):
    """What blocks: `session_proxy.ssm.boto.AwsClients`, or a fake."""

    def start_session(
        self, target: str, document: str, parameters: Mapping[str, Sequence[str]]
    ) -> tuple[str, str, str]:
        """Return the new session's id, token and stream URL."""
        ...

    def resume_session(self, session_id: str) -> tuple[str, str, str]:
        """Return the session's id, its new token and a stream URL."""
        ...

    def terminate_session(self, session_id: str) -> None:
        """End the session."""
        ...

    def running_instances(self, tag: str, value: str) -> list[Instance]:
        """Return the running instances with that tag."""
        ...

    def send_ssh_public_key(self, instance: str, user: str, public_key: str) -> None:
        """Let *public_key* log in as *user* for a minute."""
        ...

    def credentials(self) -> AwsCredentials:
        """Return which credentials are used."""
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


@attrs.define(eq=False)
class _Handover:
    """Settles whose a session is that comes up while its caller may be leaving: exactly one side ends it."""

    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _session_id: str | None = attrs.field(default=None, init=False)
    _abandoned: bool = attrs.field(default=False, init=False)

    def deliver(self, session_id: str) -> bool:
        """Say that the session is up; `False` means that nobody waits for it."""
        with self._lock:
            self._session_id = session_id
            return not self._abandoned

    def abandon(self) -> str | None:
        """Say that nobody waits any more; return the session if it is up already."""
        with self._lock:
            self._abandoned = True
            return self._session_id


@attrs.define(eq=False)
class Control:
    """The control calls of one upstream. Open it with `open_control`.

    Every method raises `AwsError`, whose message says what to do.
    """

    _make_clients: Callable[[], Clients]
    _clients: Clients | None = attrs.field(default=None, init=False)
    _making: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _threads: trio.CapacityLimiter = attrs.field(init=False, factory=lambda: trio.CapacityLimiter(THREADS))
    _closing: trio.CapacityLimiter = attrs.field(
        init=False, factory=lambda: trio.CapacityLimiter(CLOSING_THREADS)
    )

    async def start_session(
        self, target: str, document: str, parameters: Mapping[str, Sequence[str]]
    ) -> StartedSession:
        """Start a session on *target*; *parameters* are those of *document*, each a list of one string.

        A caller that is cancelled waits up to `ABANDON_LIMIT` for the call, so that its session can be ended.
        """
        clients = await self._get_clients()
        handover = _Handover()
        finished = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def start() -> tuple[str, str, str]:
            try:
                answer = clients.start_session(target, document, parameters)
                if not handover.deliver(answer[0]):
                    with suppress(AwsError):
                        clients.terminate_session(answer[0])
                return answer
            finally:
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(finished.set)

        try:
            return _session(*await self._run(start), "StartSession")
        except trio.Cancelled:
            with trio.move_on_after(ABANDON_LIMIT, shield=True):
                session_id = handover.abandon()
                if session_id is None:
                    await finished.wait()
                else:
                    with suppress(AwsError):
                        await self.terminate(session_id)
            raise

    async def resume(self, session_id: str) -> StartedSession:
        """Return a new token for a session whose WebSocket broke.

        Raises:
          SessionEndedError: the session is over.
          AwsError: the call failed.

        """
        clients = await self._get_clients()
        found, token, url = await self._run(clients.resume_session, session_id)
        if not token:
            # An ended session is answered without a token (session-manager-plugin, ResumeSessionHandler).
            raise SessionEndedError("the session has timed out or was ended at AWS")
        return _session(found or session_id, token, url, "ResumeSession")

    async def terminate(self, session_id: str) -> None:
        """End a session at AWS; ending one that is over already is no error there."""
        clients = await self._get_clients()
        await self._run(clients.terminate_session, session_id, limiter=self._closing)

    async def running_instances(self, tag: str, value: str) -> tuple[str, ...]:
        """Return the ids of the running instances with that tag, the longest running first.

        Raises:
          NoInstanceError: there is none.
          AwsError: the call failed.

        """
        clients = await self._get_clients()
        found = await self._run(clients.running_instances, tag, value)
        if not found:
            raise NoInstanceError(
                f"no running instance has the tag {tag}={value}; check the tag, the region and the account"
            )
        return tuple(
            instance.id for instance in sorted(found, key=lambda instance: (instance.launched, instance.id))
        )

    async def send_ssh_public_key(self, instance: str, user: str, public_key: str) -> None:
        """Have EC2 Instance Connect accept *public_key* (OpenSSH's one line) for *user* for 60 seconds."""
        clients = await self._get_clients()
        await self._run(clients.send_ssh_public_key, instance, user, public_key)

    async def credentials(self) -> AwsCredentials:
        """Return which credentials are used; those that have to be fetched are, but nothing is asked with them."""
        clients = await self._get_clients()
        return await self._run(clients.credentials)

    def close(self) -> None:
        """Give back the sockets kept for reuse."""
        if self._clients is not None:
            self._clients.close()

    async def _get_clients(self) -> Clients:
        async with self._making:
            if self._clients is None:
                self._clients = await self._run(self._make_clients)
            return self._clients

    async def _run(
        self, call: Callable[..., T], *args: str, limiter: trio.CapacityLimiter | None = None
    ) -> T:
        return await trio.to_thread.run_sync(
            call, *args, abandon_on_cancel=True, limiter=limiter or self._threads
        )


def _session(session_id: str, token: str, stream_url: str, operation: str) -> StartedSession:
    if not (session_id and token and stream_url):
        raise AwsUnreachableError(
            f"{operation} was answered without a session id, token or stream URL; check AWS_ENDPOINT_URL_SSM"
        )
    return StartedSession(session_id=session_id, token=token, stream_url=stream_url)


@asynccontextmanager
async def open_control(aws: Aws, environ: Mapping[str, str]) -> AsyncGenerator[Control, None]:
    """Yield the control calls with the credentials of *aws*; nothing is sent before the first call.

    *environ* may name endpoints (``AWS_ENDPOINT_URL``, ``AWS_ENDPOINT_URL_SSM``, …).
    """

    def make_clients() -> Clients:
        # Imported here, in a thread: boto3 takes a third of a second, and not every profile needs AWS.
        from session_proxy.ssm.boto import AwsClients

        return AwsClients(aws, environ)

    control = Control(make_clients)
    try:
        yield control
    finally:
        control.close()
