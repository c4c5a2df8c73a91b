from __future__ import annotations

import pytest

from session_proxy.ssm.targets import InstanceId, InstanceTag, parse_instance, resolve_instance


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i-0123456789abcdef0", InstanceId("i-0123456789abcdef0")),
        ("mi-0123456789abcdef0", InstanceId("mi-0123456789abcdef0")),
        ("i-dev-1", InstanceId("i-dev-1")),
        ("ecs:cluster_task_runtime", InstanceId("ecs:cluster_task_runtime")),
        ("tag:Role=bastion", InstanceTag("Role", "bastion")),
        ("tag:a=b=c", InstanceTag("a", "b=c")),
        ("name:web-1", InstanceTag("Name", "web-1")),
    ],
)
def test_parse(text: str, expected: object) -> None:
    assert parse_instance(text) == expected


@pytest.mark.parametrize("text", ["", "tag:", "tag:Role", "tag:=x", "tag:Role=", "name:"])
def test_incomplete_entries_say_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write "):
        parse_instance(text)


class Finder:
    """Knows two bastions."""

    async def running_instances(self, tag: str, value: str) -> tuple[str, ...]:
        """Answer the only question that is expected."""
        assert (tag, value) == ("Role", "bastion")
        return ("i-1", "i-2")


async def test_only_tags_are_looked_up() -> None:
    """An id stands for itself, so a profile of ids needs no permission to describe instances."""
    assert await resolve_instance("i-7", Finder()) == ("i-7",)
    assert await resolve_instance("tag:Role=bastion", Finder()) == ("i-1", "i-2")
