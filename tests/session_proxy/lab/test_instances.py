from __future__ import annotations

import pytest

from session_proxy.lab.aws_protocol import AwsRefusalError
from session_proxy.lab.instances import DEFAULT_INSTANCES, describe_instance, select_instances

FIRST, SECOND, STOPPED, MUTE = (instance.id for instance in DEFAULT_INSTANCES)


@pytest.mark.parametrize(
    ("ids", "filters", "expected"),
    [
        ([], {}, [FIRST, SECOND, STOPPED, MUTE]),
        ([SECOND], {}, [SECOND]),
        ([], {"tag:Role": ["bastion"]}, [FIRST, SECOND, STOPPED]),
        ([], {"tag:Role": ["bastion"], "instance-state-name": ["running"]}, [FIRST, SECOND]),
        ([], {"tag:Name": ["web-?", "x"], "instance-state-code": ["80"]}, [STOPPED]),
        ([], {"tag:Name": ["[w]eb-1"]}, []),
        ([], {"tag-key": ["Role"], "instance-id": [FIRST, MUTE]}, [FIRST]),
        ([FIRST], {"tag:Name": ["mute"]}, []),
    ],
)
def test_filters_choose(ids: list[str], filters: dict[str, list[str]], expected: list[str]) -> None:
    assert [found.id for found in select_instances(DEFAULT_INSTANCES, ids, filters)] == expected


@pytest.mark.parametrize(
    ("ids", "filters", "code"),
    [
        (["i-1"], {}, "InvalidInstanceID.Malformed"),
        (["i-00000000000000000"], {}, "InvalidInstanceID.NotFound"),
        ([], {"colour": ["red"]}, "InvalidParameterValue"),
    ],
)
def test_what_ec2_refuses_is_refused(ids: list[str], filters: dict[str, list[str]], code: str) -> None:
    with pytest.raises(AwsRefusalError) as refusal:
        select_instances(DEFAULT_INSTANCES, ids, filters)

    assert refusal.value.code == code


def test_a_description_names_state_and_tags() -> None:
    answer = describe_instance(DEFAULT_INSTANCES[0])

    assert answer["instanceState"] == {"code": 16, "name": "running"}
    assert answer["tagSet"] == [{"key": "Name", "value": "web-1"}, {"key": "Role", "value": "bastion"}]
