from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import attrs
import pytest
import trio
import trio.testing

from session_proxy.profile.model import Aws
from session_proxy.ssm.boto import Instance
from session_proxy.ssm.control import Control, open_control
from session_proxy.ssm.errors import (
    AwsThrottledError,
    AwsUnreachableError,
    NoInstanceError,
    SessionEndedError,
)
from session_proxy.ssm.session import AwsCredentials, StartedSession

CREDENTIALS = AwsCredentials(
    source="the environment", key="AKID", expires=None, region="r", endpoint="https://r"
)


@attrs.define(eq=False)
class FakeClients:
    """Blocks like boto3: a start waits for *go*."""

    answer: tuple[str, str, str] = ("me-1", "token", "wss://x")
    go: threading.Event = attrs.field(factory=threading.Event)
    instances: list[Instance] = attrs.field(factory=list[Instance])
    started: Callable[[], None] = lambda: None
    terminated: list[str] = attrs.field(factory=list[str])
    pushed: list[tuple[str, str, str]] = attrs.field(factory=list[tuple[str, str, str]])
    closed: bool = False

    def start_session(
        self, target: str, document: str, parameters: Mapping[str, Sequence[str]]
    ) -> tuple[str, str, str]:
        self.started()
        assert self.go.wait(10)
        return self.answer

    def resume_session(self, session_id: str) -> tuple[str, str, str]:
        return self.answer

    def terminate_session(self, session_id: str) -> None:
        self.terminated.append(session_id)
        raise AwsThrottledError("no matter")

    def running_instances(self, tag: str, value: str) -> list[Instance]:
        return self.instances

    def send_ssh_public_key(self, instance: str, user: str, public_key: str) -> None:
        self.pushed.append((instance, user, public_key))

    def credentials(self) -> AwsCredentials:
        return CREDENTIALS

    def close(self) -> None:
        self.closed = True


async def start(control: Control) -> StartedSession:
    return await control.start_session("i-1", "AWS-StartSSHSession", {"portNumber": ["22"]})


async def test_start() -> None:
    clients = FakeClients()
    clients.go.set()

    session = await start(Control(lambda: clients))

    assert session == StartedSession("me-1", "token", "wss://x")
    assert "token" not in repr(session).replace("token=", "")
    assert clients.terminated == []


async def test_clients_are_made_once() -> None:
    made: list[FakeClients] = []

    def make() -> FakeClients:
        made.append(FakeClients())
        made[-1].go.set()
        return made[-1]

    control = Control(make)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start, control)
    control.close()

    assert [clients.closed for clients in made] == [True]


async def test_an_answer_without_a_token() -> None:
    """A login page that boto3 takes for an empty answer is no session."""
    clients = FakeClients(answer=("", "", ""))
    clients.go.set()

    with pytest.raises(AwsUnreachableError, match="AWS_ENDPOINT_URL_SSM"):
        await start(Control(lambda: clients))


async def test_a_start_that_is_cancelled_is_ended_by_its_thread() -> None:
    """Nothing stays behind at AWS when the caller leaves while StartSession is on its way."""
    clients = FakeClients()
    token = trio.lowlevel.current_trio_token()
    under_way = trio.Event()
    clients.started = lambda: token.run_sync_soon(under_way.set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start, Control(lambda: clients))
        await under_way.wait()
        nursery.cancel_scope.cancel()
        # The call comes back after its caller was told to leave.
        clients.go.set()

    assert clients.terminated == ["me-1"]


async def test_a_cancelled_start_waits_for_a_bounded_time(autojump_clock: trio.testing.MockClock) -> None:
    """A call that hangs does not hold up the end of the process."""
    clients = FakeClients()
    token = trio.lowlevel.current_trio_token()
    under_way = trio.Event()
    clients.started = lambda: token.run_sync_soon(under_way.set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(start, Control(lambda: clients))
        await under_way.wait()
        left_at = trio.current_time()
        nursery.cancel_scope.cancel()
    took = trio.current_time() - left_at
    clients.go.set()

    assert took == pytest.approx(5, abs=0.1)


async def test_resume_of_a_session_that_is_over() -> None:
    with pytest.raises(SessionEndedError):
        await Control(lambda: FakeClients(answer=("me-1", "", ""))).resume("me-1")

    resumed = await Control(FakeClients).resume("me-1")
    assert resumed.token == "token"


async def test_instances_come_longest_running_first() -> None:
    clients = FakeClients(instances=[Instance("i-3", 20.0), Instance("i-2", 10.0), Instance("i-1", 10.0)])
    control = Control(lambda: clients)

    assert await control.running_instances("Role", "bastion") == ("i-1", "i-2", "i-3")

    clients.instances = []
    with pytest.raises(NoInstanceError, match="Role=bastion"):
        await control.running_instances("Role", "bastion")


async def test_push_a_key() -> None:
    clients = FakeClients()

    await Control(lambda: clients).send_ssh_public_key("i-1", "me", "ssh-ed25519 AAAA")

    assert clients.pushed == [("i-1", "me", "ssh-ed25519 AAAA")]


async def test_nothing_is_made_before_the_first_call() -> None:
    async with open_control(Aws(profile="there is no such profile"), {}):
        pass


async def test_credentials_are_told() -> None:
    assert await Control(FakeClients).credentials() == CREDENTIALS
