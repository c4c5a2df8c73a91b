"""The control calls of Session Manager: StartSession, ResumeSession, TerminateSession, DescribeInstance…."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from session_proxy.lab.aws_protocol import Answer, AwsRefusalError, Call
from session_proxy.lab.documents import PortSession, parse_session
from session_proxy.lab.faults import Faults
from session_proxy.lab.instances import LabInstance


@attrs.frozen
class Ticket:
    """What lets a client open a session's data channel."""

    session_id: str
    token: str = attrs.field(repr=False)
    stream_url: str

    def answer(self) -> Answer:
        """Return the answer to StartSession or ResumeSession."""
        return {"SessionId": self.session_id, "TokenValue": self.token, "StreamUrl": self.stream_url}


class UnknownSessionError(Exception):
    """There is no session with that id, or it has ended."""


class Sessions(Protocol):
    """The gateway, as the control calls see it."""

    def start_session(self, instance: LabInstance, wanted: PortSession) -> Ticket:
        """Have the instance's agent begin a session."""
        ...

    def resume_session(self, session_id: str) -> Ticket:
        """Return a new token; raises `UnknownSessionError`."""
        ...

    def terminate_session(self, session_id: str) -> None:
        """End the session, if it has not ended."""
        ...


@attrs.define(eq=False)
class ControlApi:
    """Answers Session Manager's calls for *instances*."""

    _instances: Mapping[str, LabInstance]
    _sessions: Sessions
    _faults: Faults

    def answer(self, call: Call) -> Answer:
        """Return the answer to *call*.

        Raises:
          AwsRefusalError: it is an error.

        """
        match call.operation:
            case "StartSession":
                return self._start(call)
            case "ResumeSession":
                return self._resume(call)
            case "TerminateSession":
                self._faults.check_call("terminate_error", "ssm:TerminateSession")
                session_id = call.text("SessionId")
                self._sessions.terminate_session(session_id)
                return {"SessionId": session_id}
            case "DescribeInstanceInformation":
                return {"InstanceInformationList": [_information(one) for one in self._instances.values()]}
            case "GetConnectionStatus":
                target = call.text("Target")
                return {"Target": target, "Status": "connected" if self._find(target) else "notconnected"}
            case _:
                raise AwsRefusalError("UnknownOperationException", f"the lab has no {call.operation}")

    def _start(self, call: Call) -> Answer:
        self._faults.check_call("start_error", "ssm:StartSession")
        target = call.text("Target")
        wanted = parse_session(call.text("DocumentName", ""), call.parameters.get("Parameters"))
        instance = self._find(target)
        if instance is None:
            raise AwsRefusalError("TargetNotConnected", f"{target} is not connected.")
        return self._sessions.start_session(instance, wanted).answer()

    def _resume(self, call: Call) -> Answer:
        self._faults.check_call("resume_error", "ssm:ResumeSession")
        session_id = call.text("SessionId")
        if self._faults.expired:
            # What the plugin prints "timed out" at (specification, section 12).
            return {"SessionId": session_id, "TokenValue": "", "StreamUrl": ""}
        try:
            return self._sessions.resume_session(session_id).answer()
        except UnknownSessionError as exc:
            raise AwsRefusalError("DoesNotExistException", f"Session {session_id} does not exist.") from exc

    def _find(self, target: str) -> LabInstance | None:
        instance = self._instances.get(target)
        return instance if instance and instance.connected and instance.state == "running" else None


def _information(instance: LabInstance) -> Answer:
    online = instance.connected and instance.state == "running"
    return {
        "InstanceId": instance.id,
        "PingStatus": "Online" if online else "ConnectionLost",
        "PlatformType": "Linux",
        "ResourceType": "EC2Instance",
        "ComputerName": instance.tags.get("Name", instance.id),
    }
