"""The lab's instances, and which of them EC2's DescribeInstances filters choose; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import attrs

from session_proxy.lab.aws_protocol import Answer, AwsRefusalError

ACCOUNT = "123456789012"
ZONE = "eu-west-1a"
# Codes of instance states (EC2 API reference, InstanceState).
STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")


@attrs.frozen
class LabInstance:
    """An instance: its tags, its state, when it was launched, and whether its agent is connected."""

    id: str
    tags: Mapping[str, str] = attrs.field(factory=dict[str, str])
    state: str = "running"
    connected: bool = True
    launched: str = "2026-01-01T00:00:00.000Z"


# A pair for failover, one that is switched off, and one whose agent is not connected.
DEFAULT_INSTANCES = (
    LabInstance("i-0123456789abcdef0", {"Name": "web-1", "Role": "bastion"}),
    LabInstance(
        "i-0123456789abcdef1", {"Name": "web-2", "Role": "bastion"}, launched="2026-01-02T00:00:00.000Z"
    ),
    LabInstance("i-0123456789abcdef2", {"Name": "web-3", "Role": "bastion"}, "stopped", connected=False),
    LabInstance("i-0123456789abcdef3", {"Name": "mute"}, connected=False),
)


def select_instances(
    instances: Iterable[LabInstance], ids: Sequence[str], filters: Mapping[str, Sequence[str]]
) -> list[LabInstance]:
    """Return the instances with one of *ids* (all, if there are none) that pass every one of *filters*.

    Raises:
      AwsRefusalError: an id is malformed or unknown, or a filter is.

    """
    by_id = {instance.id: instance for instance in instances}
    for wanted in ids:
        if not INSTANCE_ID.fullmatch(wanted):
            raise AwsRefusalError("InvalidInstanceID.Malformed", f'Invalid id: "{wanted}"')
        if wanted not in by_id:
            message = f"The instance ID '{wanted}' does not exist"
            raise AwsRefusalError("InvalidInstanceID.NotFound", message)
    return [
        instance
        for instance in by_id.values()
        if (not ids or instance.id in ids)
        and all(_passes(instance, name, values) for name, values in filters.items())
    ]


def _passes(instance: LabInstance, name: str, values: Sequence[str]) -> bool:
    if name == "tag-key":
        found = list(instance.tags)
    elif name.startswith("tag:"):
        tag = instance.tags.get(name.removeprefix("tag:"))
        found = [] if tag is None else [tag]
    elif name == "instance-state-name":
        found = [instance.state]
    elif name == "instance-state-code":
        found = [str(STATES[instance.state])]
    elif name == "instance-id":
        found = [instance.id]
    else:
        raise AwsRefusalError("InvalidParameterValue", f"The filter '{name}' is invalid")
    return any(_matches(text, value) for text in found for value in values)


def _matches(text: str, pattern: str) -> bool:
    # EC2 knows * and ? but no character classes.
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def describe_instance(instance: LabInstance) -> Answer:
    """Return what DescribeInstances says about *instance*."""
    return {
        "instanceId": instance.id,
        "instanceState": {"code": STATES[instance.state], "name": instance.state},
        "privateIpAddress": "127.0.0.1",
        "launchTime": instance.launched,
        "placement": {"availabilityZone": ZONE},
        "tagSet": [{"key": key, "value": value} for key, value in instance.tags.items()],
    }
