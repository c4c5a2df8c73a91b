"""How AWS's services spell calls, answers and errors over HTTP; no I/O.

Session Manager and Instance Connect speak JSON 1.1 (the operation is in ``X-Amz-Target``), STS the query
protocol and EC2 a dialect of it (the operation is in the form's ``Action``, the answer is XML).
"""

from __future__ import annotations

import enum
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET

import attrs

if TYPE_CHECKING:
    from session_proxy.lab.http import Headers, Request

Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None
# An answer: names and values; a list becomes <item>s in XML.
Answer = Mapping[str, Json]


class Service(enum.StrEnum):
    """The services that the lab's endpoint plays, by their boto3 names."""

    SSM = "ssm"
    INSTANCE_CONNECT = "ec2-instance-connect"
    EC2 = "ec2"
    STS = "sts"

    @property
    def speaks_json(self) -> bool:
        """Whether calls are JSON 1.1; else they are forms, answered by XML."""
        return self in (Service.SSM, Service.INSTANCE_CONNECT)


# The first half of X-Amz-Target, and the form's Version, tell the service.
TARGETS = {"AmazonSSM": Service.SSM, "AWSEC2InstanceConnectService": Service.INSTANCE_CONNECT}
VERSIONS = {"2016-11-15": Service.EC2, "2011-06-15": Service.STS}

# EC2 has names of its own for what every other service calls so.
EC2_CODES = {
    "AccessDeniedException": "UnauthorizedOperation",
    "ExpiredTokenException": "RequestExpired",
    "ThrottlingException": "RequestLimitExceeded",
    "UnrecognizedClientException": "AuthFailure",
}

CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/,]+)/")


class AwsRefusalError(Exception):
    """The answer to a call is an error: AWS's *code* for it and a message."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        self.code = code
        self.message = message
        self.status = status
        super().__init__(f"{code}: {message}")


@attrs.frozen
class Call:
    """One API call; *parameters* are the JSON object, or the form's fields as text."""

    service: Service
    operation: str
    parameters: Mapping[str, Json] = attrs.field(repr=False)
    access_key: str

    def text(self, name: str, default: str | None = None) -> str:
        """Return the parameter *name*, which must be text; raises `AwsRefusalError`."""
        value = self.parameters.get(name, default)
        if not isinstance(value, str):
            raise AwsRefusalError("ValidationException", f"the parameter {name} is missing, or not a string")
        return value

    def listed(self, prefix: str) -> list[str]:
        """Return the values of a form's numbered fields, ``PREFIX.1`` and on, in their order."""
        numbered = (re.fullmatch(rf"{re.escape(prefix)}\.(\d+)", name) for name in self.parameters)
        order = sorted((int(found[1]), found[0]) for found in numbered if found)
        return [self.text(name) for _, name in order]


def parse_call(request: Request, body: bytes) -> Call:
    """Return the call that *request* makes; any credentials will do, but there must be some.

    Raises:
      AwsRefusalError: it is no call, or one that the lab does not know.

    """
    signed = CREDENTIAL.match(request.headers.get("authorization", ""))
    if signed is None:
        raise AwsRefusalError(
            "MissingAuthenticationTokenException", "Request is missing Authentication Token", 403
        )
    target = request.headers.get("x-amz-target", "")
    if target:
        prefix, _, operation = target.partition(".")
        service = TARGETS.get(prefix)
        parameters = _parse_json(body)
    else:
        fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        service = VERSIONS.get(fields.get("Version", ""))
        operation = fields.get("Action", "")
        parameters = cast("dict[str, Json]", fields)
    if service is None or request.method != "POST":
        raise AwsRefusalError("UnknownOperationException", "the lab plays SSM, EC2, Instance Connect and STS")
    return Call(service, operation, parameters, signed[1])


def _parse_json(body: bytes) -> dict[str, Json]:
    try:
        parameters = json.loads(body or b"{}")
    except ValueError as exc:
        raise AwsRefusalError("SerializationException", "the body is not JSON") from exc
    if not isinstance(parameters, dict):
        raise AwsRefusalError("SerializationException", "the body is not a JSON object")
    return cast("dict[str, Json]", parameters)


@attrs.frozen
class HttpAnswer:
    """What goes back: a status, a body and headers."""

    status: int
    body: bytes
    headers: Headers


def render_answer(call: Call, answer: Answer) -> HttpAnswer:
    """Return *answer* as the call's service spells it."""
    request_id = str(uuid.uuid4())
    if call.service.speaks_json:
        return _json(200, answer, request_id)
    root = ET.Element(f"{call.operation}Response")
    if call.service is Service.EC2:
        _add(root, {"requestId": request_id, **answer})
    else:
        metadata = {"RequestId": request_id}
        _add(root, {f"{call.operation}Result": answer, "ResponseMetadata": metadata})
    return _xml(200, root, request_id)


def render_error(request: Request, error: AwsRefusalError) -> HttpAnswer:
    """Return *error* as the service that *request* speaks to spells it."""
    request_id = str(uuid.uuid4())
    if "x-amz-target" in request.headers or "json" in request.headers.get("content-type", ""):
        return _json(error.status, {"__type": error.code, "message": error.message}, request_id)
    # EC2 reads <Response><Errors>, STS reads <ErrorResponse>; botocore's parsers take <Error> from both.
    root = ET.Element("Response")
    code = EC2_CODES.get(error.code, error.code)
    _add(root, {"Errors": {"Error": {"Code": code, "Message": error.message}}, "RequestID": request_id})
    return _xml(error.status, root, request_id)


def _json(status: int, content: Answer, request_id: str) -> HttpAnswer:
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", request_id)]
    return HttpAnswer(status, json.dumps(content).encode(), headers)


def _xml(status: int, root: ET.Element, request_id: str) -> HttpAnswer:
    headers = [("Content-Type", "text/xml;charset=UTF-8"), ("x-amzn-RequestId", request_id)]
    return HttpAnswer(status, ET.tostring(root, encoding="utf-8", xml_declaration=True), headers)


def _add(parent: ET.Element, content: Json) -> None:
    match content:
        case list():
            for item in content:
                _add(ET.SubElement(parent, "item"), item)
        case Mapping():
            for name, value in content.items():
                _add(ET.SubElement(parent, name), value)
        case bool():
            parent.text = "true" if content else "false"
        case _:
            parent.text = "" if content is None else str(content)
