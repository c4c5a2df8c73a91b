from __future__ import annotations

import pytest

from session_proxy.lab.authorized_keys import AuthorizedKeys, parse_public_key
from session_proxy.lab.aws_protocol import Answer, AwsRefusalError, Call, Json, Service
from session_proxy.lab.ec2_api import Ec2Api
from session_proxy.lab.faults import Faults
from session_proxy.lab.instances import DEFAULT_INSTANCES

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"
FIRST, SECOND, STOPPED, _ = (instance.id for instance in DEFAULT_INSTANCES)


def ask(
    operation: str,
    parameters: dict[str, Json],
    *,
    keys: AuthorizedKeys | None = None,
    faults: Faults | None = None,
) -> Answer:
    instances = {instance.id: instance for instance in DEFAULT_INSTANCES}
    api = Ec2Api(instances, keys or AuthorizedKeys(), faults or Faults(), lambda: 100.0)
    return api.answer(Call(Service.EC2, operation, parameters, "AKIA"))


def test_filters_are_numbered_fields() -> None:
    answer = ask(
        "DescribeInstances",
        {
            "Filter.1.Name": "tag:Role",
            "Filter.1.Value.1": "bastion",
            "Filter.2.Name": "instance-state-name",
            "Filter.2.Value.1": "pending",
            "Filter.2.Value.2": "stopped",
        },
    )
    match answer["reservationSet"]:
        case [{"instancesSet": [{"instanceId": found}]}]:
            assert found == STOPPED
        case other:
            pytest.fail(f"{other} is not one stopped instance")


def test_nothing_found_is_an_empty_set() -> None:
    assert ask("DescribeInstances", {"Filter.1.Name": "tag-key", "Filter.1.Value.1": "x"}) == {
        "reservationSet": []
    }


def test_a_pushed_key_may_log_in() -> None:
    keys = AuthorizedKeys()
    parameters: dict[str, Json] = {"InstanceId": FIRST, "InstanceOSUser": "me", "SSHPublicKey": LINE}
    answer = ask("SendSSHPublicKey", parameters, keys=keys)

    assert answer["Success"] is True
    assert keys.allows("me", parse_public_key(LINE), 159.0)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"InstanceId": "i-00000000000000000"}, "EC2InstanceNotFoundException"),
        ({"InstanceId": STOPPED}, "EC2InstanceStateInvalidException"),
        ({"SSHPublicKey": "ssh-rsa x"}, "InvalidArgsException"),
        ({"InstanceOSUser": None}, "ValidationException"),
    ],
)
def test_a_key_that_cannot_be_pushed_is_refused(changed: dict[str, Json], code: str) -> None:
    with pytest.raises(AwsRefusalError) as refusal:
        ask(
            "SendSSHPublicKey",
            {"InstanceId": SECOND, "InstanceOSUser": "me", "SSHPublicKey": LINE, **changed},
        )

    assert refusal.value.code == code


def test_the_caller_has_an_identity() -> None:
    assert ask("GetCallerIdentity", {})["Account"] == "123456789012"


@pytest.mark.parametrize(
    ("fault", "operation"),
    [("describe_error", "DescribeInstances"), ("push_key_error", "SendSSHPublicKey"), ("", "RunInstances")],
)
def test_calls_are_refused(fault: str, operation: str) -> None:
    faults = Faults()
    if fault:
        setattr(faults, fault, "ThrottlingException")
    with pytest.raises(AwsRefusalError) as refusal:
        ask(operation, {}, faults=faults)

    assert refusal.value.code == ("ThrottlingException" if fault else "InvalidAction")
