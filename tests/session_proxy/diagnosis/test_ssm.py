"""The stages of the upstreams through AWS, in the lab."""

from __future__ import annotations

import attrs
import pytest
import trio

from session_proxy.diagnosis.report import Diagnosis
from session_proxy.diagnosis.ssm import tell_credentials
from session_proxy.lab.fixtures import lab_settings, world
from session_proxy.lab.world import World
from session_proxy.profile.loading import load_profile
from session_proxy.profile.model import Profile, SsmPortUpstream, SsmUpstream
from session_proxy.ssm.control import Clients, Control
from session_proxy.ssm.session import AwsCredentials
from tests.support.examined import examined_upstream
from tests.support.stages import failure_of, outcomes, stage_of
from tunnel_relay import stages
from tunnel_relay.stages import Course, Step

__all__ = ["lab_settings", "world"]


def no_clients() -> Clients:
    raise AssertionError("nothing is asked")


EVERYTHING = ("configuration", "credentials", "names", "reach", "handshake", "ssh", "echo")


def environ_of(world: World) -> dict[str, str]:
    return {**world.environ, "HOME": str(world.directory)}


def load(world: World) -> Profile:
    return load_profile(world.profile, environ=environ_of(world))


async def ssm(world: World, *, target: str | None = None) -> Diagnosis:
    return await examined_upstream(load(world).upstreams["ssm"], environ_of(world), target=target)


async def ssm_port(world: World, *, target: str | None = None) -> Diagnosis:
    return await examined_upstream(load(world).upstreams["ssm-port"], environ_of(world), target=target)


async def test_all_is_well(world: World) -> None:
    found = await ssm(world)

    assert outcomes(found.stages) == {**dict.fromkeys(EVERYTHING, "ok"), "tls": "skipped"}
    credentials = stage_of(found.stages, Step.CREDENTIALS).found
    assert credentials.startswith("AWS: the environment (AKIAIOSFODNN7EXAMPLE), region eu-west-1, SSH key ")
    handshake = stage_of(found.stages, Step.HANDSHAKE).found
    assert "one session alone stays at the agent's pace, about 0.6 MB/s down" in handshake
    assert handshake.endswith("so downloads share up to 4")
    assert "SSH-2.0-" in stage_of(found.stages, Step.ECHO).found

    found = await ssm_port(world, target=world.sshd)
    assert found.exit_code == 0
    assert "each destination has a session of its own" in stage_of(found.stages, Step.HANDSHAKE).found
    assert f"{world.sshd} opened in " in stage_of(found.stages, Step.ECHO).found


@pytest.mark.parametrize(
    ("code", "cause", "exit_code"),
    [
        ("AccessDeniedException", "AWS does not allow ssm:StartSession on i-", 77),
        ("ExpiredTokenException", "the AWS credentials have expired", 77),
        ("TargetNotConnected", "i-0123456789abcdef0 is not connected to Session Manager", 69),
        ("ThrottlingException", "AWS throttles StartSession", 69),
    ],
)
async def test_sessions_that_do_not_start(world: World, code: str, cause: str, exit_code: int) -> None:
    world.faults.start_error = code
    for found in (await ssm(world), await ssm_port(world)):
        stage = failure_of(found.stages)
        assert (stage.step, found.exit_code) == (Step.HANDSHAKE, exit_code)
        assert stage.cause.startswith(cause)
        assert stage.fix
        assert outcomes(found.stages)["echo"] == "skipped"


async def test_an_agent_with_a_handshake_of_another_kind(world: World) -> None:
    world.faults.kms_action = True
    stage = failure_of((await ssm(world)).stages)

    assert stage.step is Step.HANDSHAKE
    assert "KMS" in stage.cause


async def test_an_agent_that_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LIMITS", {**stages.LIMITS, Step.HANDSHAKE: 2.0})
    world.faults.no_handshake = True
    found = await ssm(world)

    stage = failure_of(found.stages)
    assert (stage.step, stage.cause) == (Step.HANDSHAKE, "not done within 2 s")
    assert stage.fix.startswith("see whether the SSM agent runs there")
    assert found.exit_code == 69


async def test_a_port_where_nothing_listens(world: World) -> None:
    found = await ssm_port(world, target="127.0.0.1:1")

    assert failure_of(found.stages).step is Step.ECHO
    assert found.exit_code == 69


async def test_instances_by_tag(world: World) -> None:
    upstream = load(world).upstreams["ssm"]
    assert isinstance(upstream, SsmUpstream)
    tagged = attrs.evolve(upstream, instances=("tag:Role=nobody",))
    found = await examined_upstream(tagged, environ_of(world))

    assert found.via == "tag:Role=nobody"
    stage = failure_of(found.stages)
    assert stage.cause == "no running instance has the tag Role=nobody"


async def test_keys_by_instance_connect(world: World) -> None:
    upstream = load(world).upstreams["ssm"]
    assert isinstance(upstream, SsmUpstream)
    ssh = attrs.evolve(upstream.ssh, key="instance-connect")
    found = await examined_upstream(attrs.evolve(upstream, ssh=ssh), environ_of(world))
    assert found.exit_code == 0
    assert "EC2 Instance Connect takes a new key" in stage_of(found.stages, Step.CREDENTIALS).found

    world.faults.push_key_error = "AccessDeniedException"
    found = await examined_upstream(attrs.evolve(upstream, ssh=ssh), environ_of(world))
    stage = failure_of(found.stages)
    assert (stage.step, found.exit_code) == (Step.SSH, 77)
    assert stage.cause.startswith("AWS does not allow ec2-instance-connect:SendSSHPublicKey")


@pytest.mark.parametrize(
    ("environ", "cause", "exit_code"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no AWS credentials were found", 77),
        ({"AWS_PROFILE": "nobody"}, "there is no such AWS profile", 78),
    ],
)
async def test_no_credentials(
    environ: dict[str, str],
    cause: str,
    exit_code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("aws")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    upstream = SsmPortUpstream(instances=("i-1",))
    found = await examined_upstream(upstream, {"AWS_REGION": "eu-west-1", **environ})

    stage = failure_of(found.stages)
    assert (stage.step, found.exit_code) == (Step.CREDENTIALS, exit_code)
    assert stage.cause.startswith(cause)
    assert outcomes(found.stages)["handshake"] == "skipped"


async def test_an_endpoint_that_does_not_answer() -> None:
    environ = {
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_ENDPOINT_URL": "https://127.0.0.1:1",
    }
    found = await examined_upstream(SsmPortUpstream(instances=("i-1",)), environ)

    stage = failure_of(found.stages)
    assert (stage.step, found.exit_code) == (Step.REACH, 69)


@pytest.mark.parametrize(
    ("left", "outcome", "told"),
    [
        (7300.0, "ok", "good for 2 h"),
        (600.0, "warning", "the AWS credentials expire in 10 min"),
        (-7300.0, "failed", "the AWS credentials expired 2 h ago"),
    ],
)
async def test_until_when_credentials_hold(left: float, outcome: str, told: str) -> None:
    class Temporary(Control):
        async def credentials(self) -> AwsCredentials:
            await trio.lowlevel.checkpoint()
            return AwsCredentials(
                source="an SSO session", key="AKID", expires=1000 + left, region="r", endpoint="https://r"
            )

    course = Course((Step.CREDENTIALS,))

    async def work() -> None:
        with course.stage(Step.CREDENTIALS) as notes:
            await tell_credentials(notes, Temporary(no_clients), 1000)

    [stage] = await course.run(work)

    assert stage.outcome == outcome
    assert told in (stage.cause or stage.found)


async def test_several_instances_of_a_tag(world: World) -> None:
    upstream = load(world).upstreams["ssm"]
    assert isinstance(upstream, SsmUpstream)
    tagged = attrs.evolve(upstream, instances=("tag:Role=bastion",))
    found = await examined_upstream(tagged, environ_of(world))

    assert found.exit_code == 0
    told = "tag:Role=bastion is i-0123456789abcdef0 and 1 more, the agent of i-0123456789abcdef0 answers"
    assert told in stage_of(found.stages, Step.HANDSHAKE).found
