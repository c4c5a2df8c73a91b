from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import boto3
import pytest
import trio
from botocore.config import Config
from botocore.exceptions import ClientError

from session_proxy.lab.files import ACCESS_KEY, REGION, SECRET_KEY
from session_proxy.lab.instances import DEFAULT_INSTANCES
from session_proxy.lab.world import LabSettings, World, open_world

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2_instance_connect import EC2InstanceConnectClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

T = TypeVar("T")
FIRST = DEFAULT_INSTANCES[0].id
LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"
# boto3 would try again what is refused on purpose.
ONCE = Config(retries={"total_max_attempts": 1})
SESSION = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)


def ssm(world: World) -> SSMClient:
    return SESSION.client("ssm", endpoint_url=world.endpoint, config=ONCE)  # pyright: ignore[reportUnknownMemberType]


def ec2(world: World) -> EC2Client:
    return SESSION.client("ec2", endpoint_url=world.endpoint, config=ONCE)  # pyright: ignore[reportUnknownMemberType]


def sts(world: World) -> STSClient:
    return SESSION.client("sts", endpoint_url=world.endpoint)  # pyright: ignore[reportUnknownMemberType]


def connect(world: World) -> EC2InstanceConnectClient:
    return SESSION.client("ec2-instance-connect", endpoint_url=world.endpoint, config=ONCE)  # pyright: ignore[reportUnknownMemberType]


@asynccontextmanager
async def lab(folder: Path) -> AsyncGenerator[World]:
    with trio.fail_after(30):
        async with open_world(folder, LabSettings()) as world:
            yield world


async def call(function: Callable[[], T]) -> T:
    """boto3 blocks, and the lab runs in this thread."""
    return await trio.to_thread.run_sync(function)


async def test_boto3_starts_resumes_and_ends_sessions(tmp_path: Path) -> None:
    async with lab(tmp_path) as world:
        client = await call(lambda: ssm(world))
        started = await call(
            lambda: client.start_session(
                Target=FIRST, DocumentName="AWS-StartSSHSession", Parameters={"portNumber": ["22"]}
            )
        )
        session_id = started["SessionId"]
        assert started["StreamUrl"].startswith(f"ws://127.0.0.1:{world.endpoint.rpartition(':')[2]}/v1/")
        assert list(world.gateway.sessions) == [session_id]
        resumed = await call(lambda: client.resume_session(SessionId=session_id))
        assert resumed["TokenValue"] not in ("", started["TokenValue"])
        ended = await call(lambda: client.terminate_session(SessionId=session_id))
        assert ended["SessionId"] == session_id
        with pytest.raises(ClientError, match="DoesNotExistException"):
            await call(lambda: client.resume_session(SessionId=session_id))
        operations = [seen.operation for seen in world.calls]

    assert operations == ["StartSession", "ResumeSession", "TerminateSession", "ResumeSession"]


async def test_boto3_finds_instances_by_their_tags(tmp_path: Path) -> None:
    async with lab(tmp_path) as world:
        client = await call(lambda: ec2(world))
        answer = await call(
            lambda: client.describe_instances(
                Filters=[
                    {"Name": "tag:Role", "Values": ["bastion"]},
                    {"Name": "instance-state-name", "Values": ["running"]},
                ]
            )
        )
        (reservation,) = answer["Reservations"]
        found = {one.get("InstanceId"): one.get("Tags") or [] for one in reservation.get("Instances", [])}
        nothing = await call(
            lambda: client.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["nobody"]}])
        )

    assert list(found) == [FIRST, DEFAULT_INSTANCES[1].id]
    assert {"Key": "Name", "Value": "web-1"} in found[FIRST]
    assert nothing["Reservations"] == []


async def test_boto3_pushes_keys_and_asks_who_it_is(tmp_path: Path) -> None:
    async with lab(tmp_path) as world:
        client = await call(lambda: connect(world))
        pushed = await call(
            lambda: client.send_ssh_public_key(InstanceId=FIRST, InstanceOSUser="me", SSHPublicKey=LINE)
        )
        identity = await call(lambda: sts(world).get_caller_identity())
        online = await call(lambda: ssm(world).describe_instance_information())

    assert pushed["Success"] is True
    assert identity["Account"] == "123456789012"
    assert [one.get("PingStatus") for one in online["InstanceInformationList"]].count("Online") == 2


@pytest.mark.parametrize(
    "code", ["ExpiredTokenException", "AccessDeniedException", "TargetNotConnected", "ThrottlingException"]
)
async def test_boto3_gets_the_errors_it_is_to_get(tmp_path: Path, code: str) -> None:
    async with lab(tmp_path) as world:
        world.faults.start_error = code
        world.faults.describe_error = code
        client = await call(lambda: ssm(world))
        with pytest.raises(ClientError) as refused:
            await call(lambda: client.start_session(Target=FIRST, DocumentName="AWS-StartSSHSession"))
        other = await call(lambda: ec2(world))
        with pytest.raises(ClientError) as also:
            await call(other.describe_instances)

    assert f"({code})" in str(refused.value)
    assert re.search(r"\((RequestExpired|UnauthorizedOperation|RequestLimitExceeded|\w+)\)", str(also.value))


async def test_a_call_can_be_slow_and_a_body_too_large(tmp_path: Path) -> None:
    async with lab(tmp_path) as world:
        world.faults.api_delay = 0.2
        began = trio.current_time()
        client = await call(lambda: ssm(world))
        with pytest.raises(ClientError):
            await call(lambda: client.start_session(Target="x" * 2_000_000))
        took = trio.current_time() - began

    assert took >= 0.2


async def test_without_credentials_nothing_is_answered(tmp_path: Path) -> None:
    async with lab(tmp_path) as world:
        done = await trio.run_process(
            ["curl", "-s", "-X", "POST", "-H", "X-Amz-Target: AmazonSSM.StartSession", world.endpoint],
            capture_stdout=True,
        )

    assert b"MissingAuthenticationTokenException" in done.stdout
