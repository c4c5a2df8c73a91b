"""Everything session_proxy.ssm raises on purpose.

SsmError
    AwsError                        a control call did not succeed
        AwsConfigurationError       no region, an unknown profile, an endpoint that is none   (exit 78)
        AwsCredentialsError         no credentials, or they are wrong or expired              (exit 77)
        AwsAccessDeniedError        the credentials do not allow the call                     (exit 77)
        AwsThrottledError           too many calls, or a quota is used up
        AwsUnreachableError         the endpoint does not answer
        TargetNotConnectedError     the instance's agent is not connected, or there is no such instance
        UnknownInstanceError        AWS does not know the instance id
        NoInstanceError             no running instance has that tag or name
        SessionEndedError           the session is over, so it cannot be resumed
    DataChannelError                the data channel does not work (any more); the message says why
        PortUnreachableError        the agent is there, but nothing answers on the instance's port
        AgentTooOldError            the agent cannot multiplex ports
"""

from __future__ import annotations

from typing import ClassVar

from session_proxy.errors import ExitCode, SessionProxyError


class SsmError(SessionProxyError):
    """Base class of what goes wrong with AWS Session Manager.

    *needs_person* says that trying again soon cannot help: somebody has to change something first.
    """

    exit_code = ExitCode.UNREACHABLE
    needs_person: ClassVar[bool] = False


class AwsError(SsmError):
    """A control call did not succeed; *code* is AWS's own error code, "" where AWS was not reached."""

    def __init__(self, message: str, *, code: str = "") -> None:
        self.code = code
        super().__init__(message)


class AwsConfigurationError(AwsError):
    """What is configured cannot be used: no region, an unknown profile, an endpoint that is none."""

    exit_code = ExitCode.CONFIGURATION
    needs_person = True


class AwsCredentialsError(AwsError):
    """There are no credentials, or AWS does not accept them (any more)."""

    exit_code = ExitCode.NOT_PERMITTED
    needs_person = True


class AwsAccessDeniedError(AwsError):
    """The credentials are good, but do not allow the call; the message names the IAM action."""

    exit_code = ExitCode.NOT_PERMITTED
    needs_person = True


class AwsThrottledError(AwsError):
    """Too many calls, or a quota is used up."""


class AwsUnreachableError(AwsError):
    """The endpoint does not answer, or not as AWS does."""


class TargetNotConnectedError(AwsError):
    """The instance's agent is not connected to Session Manager, or there is no such instance."""


class NoInstanceError(AwsError):
    """No running instance has that tag or name."""


class UnknownInstanceError(AwsError):
    """AWS does not know the instance id, or takes it for none."""

    needs_person = True


class SessionEndedError(AwsError):
    """The session is over (ended, timed out, terminated): it cannot be resumed."""


class DataChannelError(SsmError):
    """The data channel of a session could not be opened, or ended; the message says why."""


class PortUnreachableError(DataChannelError):
    """The agent answers, but sends nothing from the port: most likely nothing listens there."""


class AgentTooOldError(DataChannelError):
    """The agent is too old to carry several connections in one session."""

    needs_person = True
