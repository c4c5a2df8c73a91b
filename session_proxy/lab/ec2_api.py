"""The calls that names, tags and ephemeral keys need: EC2, EC2 Instance Connect and STS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from session_proxy.lab.authorized_keys import AuthorizedKeys, InvalidPublicKeyError
from session_proxy.lab.aws_protocol import Answer, AwsRefusalError, Call
from session_proxy.lab.faults import Faults
from session_proxy.lab.instances import ACCOUNT, LabInstance, describe_instance, select_instances

RESERVATION = "r-0123456789abcdef0"


@attrs.define(eq=False)
class Ec2Api:
    """Answers the calls for *instances*; pushed keys go to *keys*, at the time that *clock* tells."""

    _instances: Mapping[str, LabInstance]
    _keys: AuthorizedKeys
    _faults: Faults
    _clock: Callable[[], float]

    def answer(self, call: Call) -> Answer:
        """Return the answer to *call*.

        Raises:
          AwsRefusalError: it is an error.

        """
        match call.operation:
            case "DescribeInstances":
                return self._describe(call)
            case "SendSSHPublicKey":
                return self._push_key(call)
            case "GetCallerIdentity":
                return {
                    "Arn": f"arn:aws:iam::{ACCOUNT}:user/me",
                    "UserId": call.access_key,
                    "Account": ACCOUNT,
                }
            case _:
                raise AwsRefusalError("InvalidAction", f"the lab has no {call.operation}")

    def _describe(self, call: Call) -> Answer:
        self._faults.check_call("describe_error", "ec2:DescribeInstances")
        filters: dict[str, list[str]] = {}
        number = 1
        while f"Filter.{number}.Name" in call.parameters:
            filters[call.text(f"Filter.{number}.Name")] = call.listed(f"Filter.{number}.Value")
            number += 1
        chosen = select_instances(self._instances.values(), call.listed("InstanceId"), filters)
        found = [describe_instance(instance) for instance in chosen]
        reservation = {"reservationId": RESERVATION, "ownerId": ACCOUNT, "instancesSet": found}
        return {"reservationSet": [reservation] if found else []}

    def _push_key(self, call: Call) -> Answer:
        self._faults.check_call("push_key_error", "ec2-instance-connect:SendSSHPublicKey")
        instance = self._instances.get(call.text("InstanceId"))
        if instance is None:
            raise AwsRefusalError("EC2InstanceNotFoundException", "Instance not found")
        if instance.state != "running":
            message = f"Instance is not running, instance is {instance.state}."
            raise AwsRefusalError("EC2InstanceStateInvalidException", message)
        try:
            self._keys.push(call.text("InstanceOSUser"), call.text("SSHPublicKey"), self._clock())
        except InvalidPublicKeyError as exc:
            raise AwsRefusalError("InvalidArgsException", "Invalid SSH public key.") from exc
        return {"RequestId": "00000000-0000-4000-8000-000000000000", "Success": True}
