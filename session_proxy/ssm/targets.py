"""Which instances an entry of ``instances`` stands for."""

from __future__ import annotations

from typing import Protocol

import attrs

TAG = "tag:"
NAME = "name:"


@attrs.frozen
class InstanceTag:
    """The running instances whose tag *key* is *value*, in which EC2 takes ``*`` and ``?`` as wildcards."""

    key: str
    value: str


@attrs.frozen
class InstanceId:
    """One instance, by the id that Session Manager knows: ``i-…``, ``mi-…``, or whatever was written."""

    id: str


InstanceEntry = InstanceTag | InstanceId


class FindsInstances(Protocol):
    """What looks up tags: `session_proxy.ssm.control.Control`, or a fake."""

    async def running_instances(self, tag: str, value: str) -> tuple[str, ...]:
        """Return the ids of the running instances with that tag, at least one."""
        ...


def parse_instance(text: str) -> InstanceEntry:
    """Return what *text* stands for: ``tag:Key=Value``, ``name:NAME`` (the tag ``Name``) or an id.

    Raises:
      ValueError: the tag or name is incomplete; the message says what to write.

    """
    if text.startswith(TAG):
        key, equals, value = text.removeprefix(TAG).partition("=")
        if not (key and equals and value):
            raise ValueError(f"{text!r} is no tag; write tag:KEY=VALUE")
        return InstanceTag(key, value)
    if text.startswith(NAME):
        if not (value := text.removeprefix(NAME)):
            raise ValueError(f"{text!r} is no name; write name:NAME")
        return InstanceTag("Name", value)
    if not text:
        raise ValueError("an instance is empty; write its id, tag:KEY=VALUE or name:NAME")
    return InstanceId(text)


async def resolve_instance(text: str, finder: FindsInstances) -> tuple[str, ...]:
    """Return the ids that *text* stands for, in the order in which to try them.

    AWS is asked only for tags and names, so that a profile with ids needs no ``ec2:DescribeInstances``.

    Raises:
      ValueError: *text* is incomplete.
      SsmError: nothing was found, or AWS could not be asked.

    """
    match parse_instance(text):
        case InstanceId(instance_id):
            return (instance_id,)
        case InstanceTag(key, value):
            return await finder.running_instances(key, value)
