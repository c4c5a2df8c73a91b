"""What boto3 raises, told to a person: one line, with what to do about it."""

from __future__ import annotations

import re

import attrs
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from session_proxy.ssm.errors import (
    AwsAccessDeniedError,
    AwsConfigurationError,
    AwsCredentialsError,
    AwsError,
    AwsThrottledError,
    AwsUnreachableError,
    SessionEndedError,
    TargetNotConnectedError,
    UnknownInstanceError,
)

BotoError = boto.BotoCoreError | boto.ClientError | ResponseParserError

# Longer texts from AWS (encoded authorization messages run to kilobytes) are cut.
LONGEST_DETAIL = 300

ACCESS_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthException", "NotAuthorized"}
)
EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "TokenExpired"}
)
WRONG_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
THROTTLED = frozenset(
    {
        "LimitExceededException",
        "RequestLimitExceeded",
        "ServiceQuotaExceededException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
UNKNOWN_INSTANCE = frozenset(
    {
        "EC2InstanceNotFoundException",
        "InvalidInstanceID.Malformed",
        "InvalidInstanceID.NotFound",
        "InvalidInstanceId",
        "InvalidTarget",
        "ValidationException",
    }
)


@attrs.frozen
class Call:
    """A control call: its *operation*, the IAM *action* that it needs, and what it was about."""

    operation: str
    action: str
    subject: str


def translate(exc: BotoError, call: Call, profile: str | None) -> AwsError:
    """Return the error that says what *exc* means; *profile* is the AWS profile in use, if any."""
    if isinstance(exc, boto.ClientError):
        return _from_answer(exc, call)
    for kinds, kind, text in _LOCAL:
        if isinstance(exc, kinds):
            where = f" of profile {profile}" if profile else ""
            option = f" --profile {profile}" if profile else ""
            return kind(text.format(detail=_clean(str(exc)), where=where, option=option))
    return AwsError(f"{call.operation} failed: {_clean(str(exc))}")


def _from_answer(exc: boto.ClientError, call: Call) -> AwsError:
    error = exc.response.get("Error", {})
    code = error.get("Code", "")
    detail = _clean(error.get("Message", ""))
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ACCESS_DENIED:
        return AwsAccessDeniedError(
            f"AWS does not allow {call.action} on {call.subject} ({detail or code});"
            f" allow that action in the IAM policy of these credentials",
            code=code,
        )
    if code in EXPIRED:
        return AwsCredentialsError(
            "the AWS credentials have expired; get new ones, for example by `aws sso login`", code=code
        )
    if code in WRONG_CREDENTIALS:
        if "expired" in detail.lower() or "not yet current" in detail.lower():
            return AwsCredentialsError(
                f"AWS refused the request's time ({detail}); set this machine's clock", code=code
            )
        return AwsCredentialsError(
            f"AWS does not accept the credentials ({code}); check access key, secret key and session token",
            code=code,
        )
    if code in THROTTLED:
        return AwsThrottledError(
            f"AWS throttles {call.operation} ({code}); fewer `sessions` need fewer calls", code=code
        )
    if code == "TargetNotConnected" or code == "EC2InstanceStateInvalidException":
        return TargetNotConnectedError(
            f"{call.subject} is not connected to Session Manager; check the id and region, that the instance"
            " runs, that its SSM agent runs, and that its role has AmazonSSMManagedInstanceCore",
            code=code,
        )
    return _from_rarer_answer(code, detail, status, call)


def _from_rarer_answer(code: str, detail: str, status: int, call: Call) -> AwsError:
    if code == "DoesNotExistException":
        return SessionEndedError(f"AWS has no session {call.subject} any more", code=code)
    if code == "InvalidDocument":
        return AwsConfigurationError(
            f"AWS does not offer the session document here ({detail or code}); check the region", code=code
        )
    if code in UNKNOWN_INSTANCE:
        return UnknownInstanceError(
            f"AWS does not know {call.subject} ({detail or code}); check the id, the region and the account",
            code=code,
        )
    if status >= 500:
        return AwsUnreachableError(
            f"AWS answered {call.operation} with an error of its own ({code or status}); it is tried again",
            code=code,
        )
    return AwsError(f"{call.operation} on {call.subject} failed: {code}: {detail}", code=code)


_LOCAL: tuple[tuple[tuple[type[Exception], ...], type[AwsError], str], ...] = (
    (
        (boto.UnauthorizedSSOTokenError, boto.SSOTokenLoadError, boto.SSOError, boto.TokenRetrievalError),
        AwsCredentialsError,
        "the AWS SSO session{where} has ended; run `aws sso login{option}`",
    ),
    (
        (boto.LoginError,),
        AwsCredentialsError,
        "the AWS login session{where} has ended; run `aws login{option}`",
    ),
    (
        (boto.NoCredentialsError, boto.NoAuthTokenError),
        AwsCredentialsError,
        "no AWS credentials were found; run `aws configure`, or write a profile under [upstreams.NAME.aws]",
    ),
    (
        (boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.RefreshWithMFAUnsupportedError),
        AwsCredentialsError,
        "the AWS credentials{where} cannot be read: {detail}",
    ),
    (
        (boto.ProfileNotFound,),
        AwsConfigurationError,
        "there is no such AWS profile ({detail}); `aws configure list-profiles` shows those that exist",
    ),
    (
        (boto.NoRegionError,),
        AwsConfigurationError,
        'no AWS region is set; write region = "eu-west-1" (or yours) under [upstreams.NAME.aws]',
    ),
    (
        (
            boto.InvalidRegionError,
            boto.UnknownEndpointError,
            boto.EndpointProviderError,
            boto.InvalidEndpointConfigurationError,
            boto.ConfigParseError,
            boto.ConfigNotFound,
            boto.InvalidConfigError,
            boto.ParamValidationError,
        ),
        AwsConfigurationError,
        "the AWS settings cannot be used: {detail}",
    ),
    (
        (boto.ProxyConnectionError,),
        AwsUnreachableError,
        "the HTTP proxy does not answer ({detail}); check HTTPS_PROXY",
    ),
    (
        (boto.SSLError,),
        AwsUnreachableError,
        "AWS cannot be trusted: {detail}; behind an inspecting proxy, set AWS_CA_BUNDLE",
    ),
    (
        (boto.ConnectionError, boto.HTTPClientError),
        AwsUnreachableError,
        "AWS cannot be reached: {detail}; check the network, the region and HTTPS_PROXY",
    ),
    (
        (ResponseParserError,),
        AwsUnreachableError,
        "the endpoint does not answer as AWS does ({detail}); check AWS_ENDPOINT_URL and HTTPS_PROXY",
    ),
)


def _clean(text: str) -> str:
    """Return *text* as one printable line of bounded length; it may come from the network."""
    line = re.sub(r"[^\x20-\x7e]+", " ", text).strip().rstrip(".")
    return line if len(line) <= LONGEST_DETAIL else f"{line[:LONGEST_DETAIL]}…"
