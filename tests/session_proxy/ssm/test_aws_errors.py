"""The exceptions that boto3 raises by itself; test_boto.py has those that AWS's answers cause."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto

from session_proxy.errors import ExitCode
from session_proxy.ssm.aws_errors import LONGEST_DETAIL, BotoError, Call, translate
from session_proxy.ssm.errors import (
    AwsConfigurationError,
    AwsCredentialsError,
    AwsError,
    AwsUnreachableError,
)

CALL = Call("StartSession", "ssm:StartSession", "i-1")
URL = "https://ssm.eu-west-1.amazonaws.com/"


@pytest.mark.parametrize(
    ("exc", "kind", "expected"),
    [
        (boto.NoCredentialsError(), AwsCredentialsError, "run `aws configure`"),
        (
            boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            AwsCredentialsError,
            "of profile work cannot be read: Partial credentials found in env",
        ),
        (boto.UnauthorizedSSOTokenError(), AwsCredentialsError, "run `aws sso login --profile work`"),
        (boto.SSOTokenLoadError(error_msg="x"), AwsCredentialsError, "run `aws sso login --profile work`"),
        (
            boto.TokenRetrievalError(provider="sso", error_msg="expired"),
            AwsCredentialsError,
            "run `aws sso login",
        ),
        (boto.LoginRefreshRequired(), AwsCredentialsError, "run `aws login --profile work`"),
        (boto.ProfileNotFound(profile="work"), AwsConfigurationError, "aws configure list-profiles"),
        (boto.NoRegionError(), AwsConfigurationError, 'region = "eu-west-1"'),
        (
            boto.InvalidRegionError(region_name="x y"),
            AwsConfigurationError,
            "the AWS settings cannot be used",
        ),
        (boto.EndpointConnectionError(endpoint_url=URL), AwsUnreachableError, "cannot be reached"),
        (boto.ConnectTimeoutError(endpoint_url=URL), AwsUnreachableError, "check the network"),
        (boto.ReadTimeoutError(endpoint_url=URL), AwsUnreachableError, "cannot be reached"),
        (boto.ProxyConnectionError(proxy_url="http://p:1"), AwsUnreachableError, "check HTTPS_PROXY"),
        (
            boto.SSLError(endpoint_url=URL, error=ValueError("self-signed")),
            AwsUnreachableError,
            "AWS_CA_BUNDLE",
        ),
        (boto.MD5UnavailableError(), AwsError, "StartSession failed"),
    ],
)
def test_each_says_what_to_do(exc: BotoError, kind: type[AwsError], expected: str) -> None:
    error = translate(exc, CALL, "work")

    assert type(error) is kind
    assert expected in str(error)
    assert "\n" not in str(error)


def test_without_a_profile_the_command_has_no_option() -> None:
    assert str(translate(boto.UnauthorizedSSOTokenError(), CALL, None)).endswith("run `aws sso login`")


def test_long_texts_are_cut() -> None:
    message = f"Encoded authorization failure {'A' * 5000}"
    exc = boto.ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "StartSession")

    assert len(str(translate(exc, CALL, None))) < LONGEST_DETAIL + 200


def test_exit_codes() -> None:
    """Which exit code `sproxy run` ends with is a matter of the class."""
    assert translate(boto.NoCredentialsError(), CALL, None).exit_code is ExitCode.NOT_PERMITTED
    assert translate(boto.NoRegionError(), CALL, None).exit_code is ExitCode.CONFIGURATION
    assert translate(boto.ReadTimeoutError(endpoint_url=URL), CALL, None).exit_code is ExitCode.UNREACHABLE
