"""The lab's one AWS endpoint: control calls and data channels on the same port."""

from __future__ import annotations

from typing import Protocol

import attrs
import trio

from session_proxy.lab.aws_protocol import (
    Answer,
    AwsRefusalError,
    Call,
    Service,
    parse_call,
    render_answer,
    render_error,
)
from session_proxy.lab.faults import Faults
from session_proxy.lab.http import BodyTooLargeError, Handler, HttpConnection, Request

# What a test can look back on; a long-running lab must not grow.
REMEMBERED_CALLS = 1000


class Api(Protocol):
    """Something that answers calls."""

    def answer(self, call: Call) -> Answer:
        """Return the answer; raises `AwsRefusalError`."""
        ...


@attrs.define(eq=False)
class Endpoint:
    """Answers HTTP requests by *ssm* or *ec2*, and hands those for a WebSocket to *upgrade*.

    *calls* holds the latest control calls, the newest last.
    """

    _ssm: Api
    _ec2: Api
    _faults: Faults
    _upgrade: Handler
    calls: list[Call] = attrs.field(factory=list[Call], init=False)

    async def handle(self, connection: HttpConnection, request: Request) -> None:
        """Answer one request; raises `LabHttpError` when the client leaves."""
        if request.upgrades_to_websocket:
            await self._upgrade(connection, request)
            return
        await trio.sleep(self._faults.api_delay)
        try:
            try:
                body = await connection.read_body()
            except BodyTooLargeError as exc:
                raise AwsRefusalError("RequestEntityTooLarge", str(exc), 413) from exc
            call = parse_call(request, body)
            self.calls.append(call)
            del self.calls[:-REMEMBERED_CALLS]
            api = self._ssm if call.service is Service.SSM else self._ec2
            answer = render_answer(call, api.answer(call))
        except AwsRefusalError as exc:
            answer = render_error(request, exc)
        await connection.respond(answer.status, answer.body, answer.headers)
