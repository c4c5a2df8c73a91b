from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from session_proxy.lab.aws_protocol import (
    AwsRefusalError,
    Call,
    Service,
    parse_call,
    render_answer,
    render_error,
)
from session_proxy.lab.http import Request

SIGNED = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/ssm/aws4_request, SignedHeaders=host, Signature=00"
START = {"authorization": SIGNED, "x-amz-target": "AmazonSSM.StartSession"}
FORM = {"authorization": SIGNED, "content-type": "application/x-www-form-urlencoded; charset=utf-8"}


def post(headers: dict[str, str]) -> Request:
    return Request("POST", "/", headers)


def test_a_json_call_is_told_by_its_target() -> None:
    call = parse_call(post(START), b'{"Target": "i-1", "Parameters": {"portNumber": ["22"]}}')

    assert (call.service, call.operation, call.access_key) == (Service.SSM, "StartSession", "AKIAEXAMPLE")
    assert call.text("Target") == "i-1"
    assert call.text("Absent", "default") == "default"


def test_a_form_is_told_by_its_version() -> None:
    body = b"Action=DescribeInstances&Version=2016-11-15&InstanceId.2=b&InstanceId.10=c&InstanceId.1=a&Filter.1.Name=x"
    call = parse_call(post(FORM), body)

    assert (call.service, call.operation) == (Service.EC2, "DescribeInstances")
    assert call.listed("InstanceId") == ["a", "b", "c"]
    assert call.listed("Filter.1.Value") == []


@pytest.mark.parametrize(
    ("request_", "body", "code"),
    [
        (Request("POST", "/", {}), b"{}", "MissingAuthenticationTokenException"),
        (Request("POST", "/", {"authorization": "Bearer x"}), b"", "MissingAuthenticationTokenException"),
        (post(START), b"not json", "SerializationException"),
        (post(START), b"[]", "SerializationException"),
        (post({**START, "x-amz-target": "DynamoDB.Scan"}), b"{}", "UnknownOperationException"),
        (post(FORM), b"Action=Scan&Version=1", "UnknownOperationException"),
        (Request("GET", "/", START), b"{}", "UnknownOperationException"),
    ],
)
def test_what_is_no_call_is_refused(request_: Request, body: bytes, code: str) -> None:
    with pytest.raises(AwsRefusalError) as refusal:
        parse_call(request_, body)

    assert refusal.value.code == code


def test_a_parameter_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(AwsRefusalError, match="Target"):
        parse_call(post(START), b'{"Target": 5}').text("Target")


def test_json_is_answered_with_json() -> None:
    call = Call(Service.SSM, "StartSession", {}, "AKIA")
    answer = render_answer(call, {"SessionId": "s"})

    assert (answer.status, json.loads(answer.body)) == (200, {"SessionId": "s"})


def test_ec2_lists_are_items() -> None:
    answer = render_answer(
        Call(Service.EC2, "DescribeInstances", {}, ""), {"set": [{"a": 1, "b": True, "c": None}]}
    )
    root = ET.fromstring(answer.body)

    assert root.tag == "DescribeInstancesResponse"
    assert [root.findtext(f"set/item/{name}") for name in "abc"] == ["1", "true", ""]


def test_sts_wraps_its_result() -> None:
    answer = render_answer(Call(Service.STS, "GetCallerIdentity", {}, ""), {"Account": "1"})

    assert ET.fromstring(answer.body).findtext("GetCallerIdentityResult/Account") == "1"


def test_an_error_has_the_shape_and_the_name_of_its_service() -> None:
    error = AwsRefusalError("AccessDeniedException", "no")
    spoken = json.loads(render_error(post(START), error).body)
    written = ET.fromstring(render_error(post(FORM), error).body)

    assert spoken == {"__type": "AccessDeniedException", "message": "no"}
    assert written.findtext("Errors/Error/Code") == "UnauthorizedOperation"
    assert written.findtext("Errors/Error/Message") == "no"


def test_parameters_do_not_show_in_a_repr() -> None:
    assert "secret" not in repr(Call(Service.SSM, "X", {"a": "secret"}, "AKIA"))
