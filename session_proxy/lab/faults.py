"""What the lab can do wrong on purpose: named switches, set at its start or while it runs; no I/O.

"Output" goes from the agent to the client, "input" the other way, as in the names of the frame types
``output_stream_data`` and ``input_stream_data``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, get_args, get_type_hints

import attrs

from session_proxy.lab.aws_protocol import AwsRefusalError

ON = ("", "on", "true", "yes", "1")
OFF = ("off", "false", "no", "0")

# What AWS says with the codes that are worth playing.
MESSAGES = {
    "AccessDeniedException": "User: arn:aws:iam::123456789012:user/me is not authorized to perform: {action}",
    "ExpiredTokenException": "The security token included in the request is expired",
    "TargetNotConnected": "The target is not connected.",
    "ThrottlingException": "Rate exceeded",
    "UnrecognizedClientException": "The security token included in the request is invalid.",
}

ErrorCode = Annotated[str, "CODE"]
Count = Annotated[int, "N"]
Seconds = Annotated[float, "SECONDS"]
Text = Annotated[str, "TEXT"]
Switch = Annotated[bool, "on"]


class UnknownFaultError(Exception):
    """The text is no ``NAME=VALUE`` that `Faults` knows; the message says what to write."""


@attrs.define(kw_only=True, eq=False)
class Faults:
    """Every fault, harmless by default; set them at any time. CODE is an AWS error code, N is 0 for never."""

    # The control calls
    start_error: Annotated[ErrorCode, "StartSession is refused, with AccessDeniedException for one"] = ""
    resume_error: Annotated[ErrorCode, "ResumeSession is refused"] = ""
    terminate_error: Annotated[ErrorCode, "TerminateSession is refused"] = ""
    describe_error: Annotated[ErrorCode, "DescribeInstances is refused"] = ""
    push_key_error: Annotated[ErrorCode, "SendSSHPublicKey is refused"] = ""
    error_count: Annotated[Count, "only the first N calls are refused, then all succeed"] = 0
    api_delay: Annotated[Seconds, "every control call takes so long"] = 0.0
    expired: Annotated[Switch, "ResumeSession answers as for an expired session: without a token"] = False

    # The WebSocket between client and gateway
    cut_after: Annotated[Count, "the WebSocket is cut after every N stream frames"] = 0
    cut_loses: Annotated[Count, "before a cut, the next N frames of either side go nowhere"] = 0
    cut_resets: Annotated[Switch, "a cut resets TCP; AWS's plugin may then deliver a frame twice"] = False
    close_after: Annotated[Seconds, "the gateway closes every WebSocket that old (AWS does hourly)"] = 0.0
    silent: Annotated[Switch, "the gateway holds the socket but neither reads nor writes, not even pongs"] = (
        False
    )
    rate_limit: Annotated[Count, "more than N frames in a second from the client cut its WebSocket"] = 0
    pause_first: Annotated[Switch, "empty pause and start_publication come before the handshake"] = False
    closed_116: Annotated[Switch, "channel_closed has a header of 116 bytes, not the service's 112"] = False

    # Frames on their way
    drop_output: Annotated[Count, "every N-th frame to the client is lost"] = 0
    drop_input: Annotated[Count, "every N-th frame to the agent is lost"] = 0
    duplicate_output: Annotated[Count, "every N-th frame to the client comes twice"] = 0
    duplicate_input: Annotated[Count, "every N-th frame to the agent comes twice"] = 0
    reorder_output: Annotated[Count, "every N-th frame to the client comes after the one behind it"] = 0
    reorder_input: Annotated[Count, "every N-th frame to the agent comes after the one behind it"] = 0
    drop_acks_to_client: Annotated[Count, "every N-th acknowledgement to the client is lost"] = 0
    drop_acks_to_agent: Annotated[Count, "every N-th acknowledgement to the agent is lost"] = 0
    wrong_digest: Annotated[Count, "every N-th frame to the client follows a copy with a bit flipped"] = 0
    wrong_header: Annotated[
        Count, "every N-th frame to the client follows one whose header points past its end"
    ] = 0

    # The agent
    refuse_input: Annotated[Count, "the first N frames of data to the agent are refused, unacknowledged"] = 0
    connect_delay: Annotated[Seconds, "the agent's TCP connections take so long"] = 0.0
    connect_fails: Annotated[Switch, "the agent's TCP connections fail"] = False
    crash_notice: Annotated[Seconds, "how long a session without an sshd stays silent before it ends"] = 60.0
    no_handshake: Annotated[Switch, "the agent never begins the handshake"] = False
    kms_action: Annotated[Switch, "the handshake asks for KMS encryption, which no port session has"] = False
    unknown_action: Annotated[Switch, "the handshake asks for an action that nobody knows"] = False
    customer_message: Annotated[Text, "HandshakeComplete carries this message"] = ""
    resend_head_only: Annotated[Switch, "the agent resends its oldest frame only, as AWS's does"] = False

    _refused: dict[str, int] = attrs.field(factory=dict[str, int], init=False)

    def set(self, assignment: str) -> None:
        """Obey ``NAME=VALUE``, as ``sproxy lab --fault`` has it.

        Raises:
          UnknownFaultError: there is no such fault, or the value does not fit.

        """
        name, equals, value = assignment.partition("=")
        known = {row.name: row for row in describe_faults()}
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
            raise UnknownFaultError(f"there is no fault {name!r}; {hint}")
        row = known[name]
        try:
            parsed = row.parse(value if equals else "")
        except ValueError as exc:
            raise UnknownFaultError(
                f"the fault {name} is written {name}={row.value}, not {assignment!r}"
            ) from exc
        setattr(self, name.replace("-", "_"), parsed)

    def check_call(self, fault: str, action: str) -> None:
        """Refuse the call that the *fault* ``…_error`` is about, if it is set; *action* is its IAM name.

        Raises:
          AwsRefusalError: with the code set.

        """
        code: str = getattr(self, fault)
        refused = self._refused.get(fault, 0)
        if not code or (self.error_count and refused >= self.error_count):
            return
        self._refused[fault] = refused + 1
        raise AwsRefusalError(code, MESSAGES.get(code, "The lab was told to refuse.").format(action=action))


@attrs.frozen
class FaultRow:
    """One line of the table of faults: *value* is what to write after ``NAME=``."""

    name: str
    value: str
    says: str
    type: type

    def parse(self, text: str) -> str | int | float | bool:
        """Return *text* as the fault's value; raises `ValueError`."""
        if self.type is bool:
            return (*OFF, *ON).index(text.lower()) >= len(OFF)
        if not text and self.type is not str:
            raise ValueError("no value")
        value: str | int | float = self.type(text)
        if not isinstance(value, str) and not 0 <= value < 1e9:
            raise ValueError("out of range")
        return value


def describe_faults() -> list[FaultRow]:
    """Return the table of all faults, in their order."""
    hints = get_type_hints(Faults, include_extras=True)
    rows: list[FaultRow] = []
    for field in attrs.fields(Faults):
        if field.init:
            kind, value, says = get_args(hints[field.name])
            rows.append(FaultRow(field.name.replace("_", "-"), value, says, kind))
    return rows


def parse_faults(assignments: Iterable[str]) -> Faults:
    """Return faults set by ``NAME=VALUE`` texts; raises `UnknownFaultError`."""
    faults = Faults()
    for assignment in assignments:
        faults.set(assignment)
    return faults
