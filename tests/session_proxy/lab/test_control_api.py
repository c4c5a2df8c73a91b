from __future__ import annotations

import attrs
import pytest

from session_proxy.lab.aws_protocol import Answer, AwsRefusalError, Call, Json, Service
from session_proxy.lab.control_api import ControlApi, Ticket, UnknownSessionError
from session_proxy.lab.documents import SSH, PortSession
from session_proxy.lab.faults import Faults
from session_proxy.lab.instances import DEFAULT_INSTANCES, LabInstance

FIRST, _, STOPPED, MUTE = (instance.id for instance in DEFAULT_INSTANCES)


@attrs.define
class FakeSessions:
    """A gateway that notes what it is asked."""

    started: list[tuple[str, PortSession]] = attrs.field(factory=list[tuple[str, PortSession]])
    terminated: list[str] = attrs.field(factory=list[str])

    def start_session(self, instance: LabInstance, wanted: PortSession) -> Ticket:
        self.started.append((instance.id, wanted))
        return Ticket("s-1", "token", "ws://here")

    def resume_session(self, session_id: str) -> Ticket:
        if session_id != "s-1":
            raise UnknownSessionError
        return Ticket("s-1", "other", "ws://here")

    def terminate_session(self, session_id: str) -> None:
        self.terminated.append(session_id)


@attrs.define
class Setting:
    """The API over a fake gateway."""

    sessions: FakeSessions = attrs.field(factory=FakeSessions)
    faults: Faults = attrs.field(factory=Faults)

    def ask(self, operation: str, **parameters: Json) -> Answer:
        instances = {instance.id: instance for instance in DEFAULT_INSTANCES}
        api = ControlApi(instances, self.sessions, self.faults)
        return api.answer(Call(Service.SSM, operation, parameters, "AKIA"))


def test_a_session_starts_with_a_ticket() -> None:
    lab = Setting()
    answer = lab.ask("StartSession", Target=FIRST, DocumentName=SSH, Parameters={"portNumber": ["2222"]})

    assert answer == {"SessionId": "s-1", "TokenValue": "token", "StreamUrl": "ws://here"}
    assert lab.sessions.started == [(FIRST, PortSession(SSH, None, 2222))]


@pytest.mark.parametrize("target", [STOPPED, MUTE, "i-00000000000000000", "x"])
def test_an_instance_without_an_agent_is_not_connected(target: str) -> None:
    with pytest.raises(AwsRefusalError) as refusal:
        Setting().ask("StartSession", Target=target, DocumentName=SSH)

    assert (refusal.value.code, refusal.value.message) == (
        "TargetNotConnected",
        f"{target} is not connected.",
    )


def test_resuming_gives_a_new_token_or_none_at_all() -> None:
    lab = Setting()
    assert lab.ask("ResumeSession", SessionId="s-1")["TokenValue"] == "other"
    with pytest.raises(AwsRefusalError) as refusal:
        lab.ask("ResumeSession", SessionId="s-2")
    assert refusal.value.code == "DoesNotExistException"

    lab.faults.expired = True
    assert lab.ask("ResumeSession", SessionId="s-1")["TokenValue"] == ""


def test_ending_a_session_that_is_over_is_no_error() -> None:
    lab = Setting()

    assert lab.ask("TerminateSession", SessionId="gone") == {"SessionId": "gone"}
    assert lab.sessions.terminated == ["gone"]


def test_the_fleet_says_who_is_online() -> None:
    information = Setting().ask("DescribeInstanceInformation")["InstanceInformationList"]
    assert isinstance(information, list)

    assert [one["PingStatus"] for one in information if isinstance(one, dict)] == [
        "Online",
        "Online",
        "ConnectionLost",
        "ConnectionLost",
    ]
    assert Setting().ask("GetConnectionStatus", Target=FIRST)["Status"] == "connected"
    assert Setting().ask("GetConnectionStatus", Target=MUTE)["Status"] == "notconnected"


@pytest.mark.parametrize(
    ("fault", "operation", "parameters"),
    [
        ("start_error", "StartSession", {"Target": FIRST, "DocumentName": SSH}),
        ("resume_error", "ResumeSession", {"SessionId": "s-1"}),
        ("terminate_error", "TerminateSession", {"SessionId": "s-1"}),
    ],
)
def test_calls_are_refused_on_purpose(fault: str, operation: str, parameters: dict[str, Json]) -> None:
    lab = Setting()
    setattr(lab.faults, fault, "AccessDeniedException")
    with pytest.raises(AwsRefusalError, match=f"ssm:{operation}"):
        lab.ask(operation, **parameters)


@pytest.mark.parametrize("operation", ["SendCommand", ""])
def test_other_calls_are_unknown(operation: str) -> None:
    with pytest.raises(AwsRefusalError) as refusal:
        Setting().ask(operation)

    assert refusal.value.code == "UnknownOperationException"


def test_a_token_does_not_show() -> None:
    assert "hidden" not in repr(Ticket("s", "hidden", "ws://here"))
