from __future__ import annotations

import attrs
import pytest

from session_proxy.lab.aws_protocol import AwsRefusalError
from session_proxy.lab.faults import Faults, UnknownFaultError, describe_faults, parse_faults


def test_every_fault_is_in_the_table_and_harmless_at_first() -> None:
    rows = describe_faults()
    switches = [field for field in attrs.fields(Faults) if field.init]

    assert len(rows) == len(switches)
    assert all(row.says and row.value for row in rows)
    assert {field.default for field in switches} <= {"", 0, 60.0}


def test_faults_are_set_by_name_and_value() -> None:
    faults = parse_faults(
        [
            "drop-output=7",
            "silent=on",
            "kms-action",
            "api-delay=0.5",
            "customer-message=a=b",
            "pause-first=off",
        ]
    )

    assert (faults.drop_output, faults.silent, faults.kms_action, faults.api_delay) == (7, True, True, 0.5)
    assert faults.customer_message == "a=b"
    assert not faults.pause_first


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("drop-outputs=7", "did you mean drop-output?"),
        ("zzzz=1", "one of start-error"),
        ("drop-output", "drop-output=N"),
        ("drop-output=", "drop-output=N"),
        ("drop-output=often", "drop-output=N"),
        ("drop-output=-1", "drop-output=N"),
        ("api-delay=inf", "api-delay=SECONDS"),
        ("silent=maybe", "silent=on"),
    ],
)
def test_a_wrong_switch_says_what_to_write(assignment: str, message: str) -> None:
    with pytest.raises(UnknownFaultError) as error:
        parse_faults([assignment])

    assert message in str(error.value)


def test_calls_are_refused_with_the_code_and_as_often_as_told() -> None:
    faults = parse_faults(["start-error=AccessDeniedException", "error-count=2"])
    for _ in range(2):
        with pytest.raises(AwsRefusalError, match="ssm:StartSession") as refusal:
            faults.check_call("start_error", "ssm:StartSession")
        assert refusal.value.code == "AccessDeniedException"
    faults.check_call("start_error", "ssm:StartSession")
    faults.check_call("resume_error", "ssm:ResumeSession")
