"""boto3's own error paths: through botocore's Stubber, and against a loopback server in AWS's place."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import socket
import threading
from collections.abc import Generator
from pathlib import Path

import attrs
import pytest
from botocore.stub import Stubber

from session_proxy.profile.model import Aws
from session_proxy.profile.secret import Secret
from session_proxy.ssm.boto import AwsClients
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

INLINE = Aws(
    region="eu-west-1",
    access_key=Secret("literal", "", "AKIDEXAMPLE"),
    secret_key=Secret("literal", "", "s3cr3t-key"),
)

# botocore checks lengths before it sends.
INSTANCE = "i-0123456789abcdef0"
Asked = tuple[str, dict[str, str], bytes]
KEY = f"ssh-ed25519 {'A' * 68}"


@pytest.fixture(autouse=True)
def _own_aws_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the developer's own AWS settings, nor waits for an instance's metadata."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@attrs.define(eq=False)
class FakeAws:
    """An HTTP server that answers every POST with *status* and *body* and keeps what it was asked."""

    port: int
    status: int = 200
    body: bytes = b"{}"
    requests: list[Asked] = attrs.field(factory=list[Asked])

    @property
    def environ(self) -> dict[str, str]:
        """What points boto3 here."""
        return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def fail(self, status: int, code: str, message: str) -> None:
        """Answer with an error in JSON 1.1 form from now on."""
        self.status, self.body = status, json.dumps({"__type": code, "message": message}).encode()


@pytest.fixture(scope="module")
def server() -> Generator[FakeAws, None, None]:
    """Serve until all tests are through."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            fake.requests.append((self.path, dict(self.headers), body))
            self.send_response(fake.status)
            self.send_header("content-length", str(len(fake.body)))
            self.end_headers()
            self.wfile.write(fake.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake = FakeAws(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})  # noqa: TID251
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture
def fake_aws(server: FakeAws) -> FakeAws:
    """The server as if it were new."""
    server.status, server.body = 200, b"{}"
    server.requests.clear()
    return server


@pytest.fixture(scope="module")
def clients(server: FakeAws) -> Generator[AwsClients, None, None]:
    """Clients that talk to the fake AWS; making boto3's takes long, so tests share them."""
    clients = AwsClients(INLINE, server.environ)
    yield clients
    clients.close()


def start(clients: AwsClients) -> tuple[str, str, str]:
    return clients.start_session("i-1", "AWS-StartSSHSession", {"portNumber": ["22"]})


def test_start_session_sends_what_aws_expects(fake_aws: FakeAws, clients: AwsClients) -> None:
    fake_aws.body = json.dumps({"SessionId": "me-1", "TokenValue": "t", "StreamUrl": "wss://x"}).encode()

    assert start(clients) == ("me-1", "t", "wss://x")

    path, headers, body = fake_aws.requests[0]
    assert path == "/"
    assert headers["X-Amz-Target"] == "AmazonSSM.StartSession"
    assert "Credential=AKIDEXAMPLE/" in headers["Authorization"]
    assert "session-proxy" in headers["User-Agent"]
    assert json.loads(body) == {
        "Target": "i-1",
        "DocumentName": "AWS-StartSSHSession",
        "Parameters": {"portNumber": ["22"]},
    }


def test_resume_and_terminate(fake_aws: FakeAws, clients: AwsClients) -> None:
    fake_aws.body = json.dumps({"SessionId": "me-1", "TokenValue": "t2", "StreamUrl": "wss://x"}).encode()

    assert clients.resume_session("me-1") == ("me-1", "t2", "wss://x")
    clients.terminate_session("me-1")

    assert [json.loads(body) for _, _, body in fake_aws.requests] == [{"SessionId": "me-1"}] * 2


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "expected"),
    [
        (
            400,
            "AccessDeniedException",
            "User: arn:aws:iam::1:user/me is not authorized",
            AwsAccessDeniedError,
            "ssm:StartSession on i-1 (User: arn:aws:iam::1:user/me is not authorized); allow that action",
        ),
        (400, "ExpiredTokenException", "expired", AwsCredentialsError, "have expired; get new ones"),
        (400, "UnrecognizedClientException", "invalid token", AwsCredentialsError, "check access key"),
        (403, "InvalidSignatureException", "Signature expired: x", AwsCredentialsError, "clock"),
        (400, "TargetNotConnected", "i-1 is not connected.", TargetNotConnectedError, "i-1 is not connected"),
        (400, "ThrottlingException", "Rate exceeded", AwsThrottledError, "throttles StartSession"),
        (400, "InvalidDocument", "no such", AwsConfigurationError, "check the region"),
        (400, "ValidationException", "bad target", UnknownInstanceError, "does not know i-1 (bad target)"),
        (400, "DoesNotExistException", "gone", SessionEndedError, "any more"),
        (500, "InternalServerError", "oops", AwsUnreachableError, "error of its own"),
        (400, "Surprise", "what\x1b[31m\nnow", AwsError, "Surprise: what [31m now"),
    ],
)
def test_each_answer_says_what_to_do(
    fake_aws: FakeAws,
    clients: AwsClients,
    status: int,
    code: str,
    message: str,
    kind: type[AwsError],
    expected: str,
) -> None:
    """Every error of AWS becomes one line that names the call and the remedy."""
    fake_aws.fail(status, code, message)

    with pytest.raises(kind) as caught:
        start(clients)

    assert type(caught.value) is kind
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cr3t-key" not in str(caught.value)
    assert caught.value.code == code


def test_an_answer_that_is_not_awss(fake_aws: FakeAws, clients: AwsClients) -> None:
    """A captive portal's page is told apart from AWS; boto3 takes it for an empty answer where it can."""
    fake_aws.body = b"<html>Please log in</html"

    assert start(clients) == ("", "", "")
    with pytest.raises(AwsUnreachableError, match="does not answer as AWS does"):
        clients.running_instances("Role", "bastion")

    fake_aws.status = 403
    with pytest.raises(AwsError, match="StartSession on i-1 failed: 403"):
        start(clients)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        clients = AwsClients(INLINE, {"AWS_ENDPOINT_URL_SSM": f"http://127.0.0.1:{taken.getsockname()[1]}"})
        with pytest.raises(AwsUnreachableError, match="AWS cannot be reached"):
            start(clients)
        clients.close()


def test_no_credentials_anywhere(fake_aws: FakeAws) -> None:
    with pytest.raises(AwsCredentialsError, match="no AWS credentials were found"):
        start(AwsClients(Aws(region="eu-west-1"), fake_aws.environ))


def test_unknown_profile(fake_aws: FakeAws) -> None:
    with pytest.raises(AwsConfigurationError, match="no such AWS profile"):
        start(AwsClients(Aws(profile="nope"), fake_aws.environ))


def test_no_region() -> None:
    with pytest.raises(AwsConfigurationError, match="no AWS region is set"):
        start(AwsClients(attrs.evolve(INLINE, region=None), {}))


def test_an_endpoint_that_is_none() -> None:
    with pytest.raises(AwsConfigurationError, match="Invalid endpoint"):
        start(AwsClients(INLINE, {"AWS_ENDPOINT_URL": "ssm without scheme"}))


def test_ended_sso_session(tmp_path: Path) -> None:
    """An SSO profile without a cached token names the command that logs in."""
    (tmp_path / "config").write_text(
        "[profile work]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = r\nregion = eu-west-1\n"
        "[sso-session corp]\nsso_start_url = https://example.com\nsso_region = eu-west-1\n"
    )

    with pytest.raises(AwsCredentialsError, match="aws sso login --profile work"):
        start(AwsClients(Aws(profile="work"), {}))


def test_region_of_the_profile(tmp_path: Path) -> None:
    """The region may come from the AWS profile, as in the seed's example."""
    (tmp_path / "config").write_text("[profile work]\nregion = ap-south-1\n")
    clients = AwsClients(Aws(profile="work"), {})

    assert clients.ssm().meta.region_name == "ap-south-1"
    assert clients.ssm() is clients.ssm()
    clients.close()


def test_configured_endpoints_can_be_ignored() -> None:
    environ = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}
    clients = AwsClients(INLINE, environ)

    assert clients.ssm().meta.endpoint_url == "https://ssm.eu-west-1.amazonaws.com"
    clients.close()


def test_running_instances() -> None:
    clients = AwsClients(INLINE, {})
    launched = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    with Stubber(clients.ec2()) as stub:
        stub.add_response(
            "describe_instances",
            {"Reservations": [{"Instances": [{"InstanceId": "i-1", "LaunchTime": launched}]}]},
            {
                "Filters": [
                    {"Name": "tag:Role", "Values": ["bastion"]},
                    {"Name": "instance-state-name", "Values": ["running"]},
                ]
            },
        )
        found = clients.running_instances("Role", "bastion")
    clients.close()

    assert [(instance.id, instance.launched) for instance in found] == [("i-1", launched.timestamp())]


def test_describe_instances_not_allowed() -> None:
    clients = AwsClients(INLINE, {})
    with Stubber(clients.ec2()) as stub:
        stub.add_client_error("describe_instances", "UnauthorizedOperation", "You are not authorized.", 403)
        with pytest.raises(AwsAccessDeniedError, match="ec2:DescribeInstances on tag:Name=web"):
            clients.running_instances("Name", "web")
    clients.close()


def test_send_ssh_public_key() -> None:
    clients = AwsClients(INLINE, {})
    with Stubber(clients.instance_connect()) as stub:
        stub.add_response(
            "send_ssh_public_key",
            {"RequestId": "r", "Success": True},
            {"InstanceId": INSTANCE, "InstanceOSUser": "me", "SSHPublicKey": KEY},
        )
        clients.send_ssh_public_key(INSTANCE, "me", KEY)
        stub.add_client_error("send_ssh_public_key", "EC2InstanceNotFoundException", "no", 404)
        with pytest.raises(UnknownInstanceError):
            clients.send_ssh_public_key(INSTANCE, "me", KEY)
    clients.close()


def test_repr_shows_no_secret() -> None:
    assert "s3cr3t-key" not in repr(AwsClients(INLINE, {"AWS_SECRET_ACCESS_KEY": "s3cr3t-key"}))


def test_credentials_of_the_environment(fake_aws: FakeAws) -> None:
    """What stands in *environ* counts as if it stood in the process's own."""
    environ = {
        "AWS_ACCESS_KEY_ID": "AKIDENVIRON",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_SESSION_TOKEN": "session",
        "AWS_REGION": "us-west-2",
        **fake_aws.environ,
    }
    clients = AwsClients(Aws(), environ)
    start(clients)
    clients.close()

    _, headers, _ = fake_aws.requests[0]
    assert "Credential=AKIDENVIRON/" in headers["Authorization"]
    assert "/us-west-2/ssm/" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == "session"


def test_profile_of_the_environment(fake_aws: FakeAws, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id=AKIDWORK\naws_secret_access_key=x\n")
    clients = AwsClients(Aws(region="eu-west-1"), {"AWS_PROFILE": "work", **fake_aws.environ})
    start(clients)
    clients.close()

    assert "Credential=AKIDWORK/" in fake_aws.requests[0][1]["Authorization"]


def test_renewed_credentials_are_noticed(fake_aws: FakeAws, tmp_path: Path) -> None:
    """Tools that write new temporary keys to ~/.aws/credentials need no restart of the proxy."""
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id=AKIDOLD\naws_secret_access_key=x\n")
    clients = AwsClients(Aws(region="eu-west-1"), fake_aws.environ)
    fake_aws.fail(400, "ExpiredTokenException", "expired")
    with pytest.raises(AwsCredentialsError):
        start(clients)

    keys.write_text("[default]\naws_access_key_id=AKIDNEW\naws_secret_access_key=x\n")
    fake_aws.status, fake_aws.body = 200, b"{}"
    start(clients)
    clients.close()

    used = [headers["Authorization"] for _, headers, _ in fake_aws.requests]
    assert ["AKIDOLD" in used[0], "AKIDNEW" in used[-1]] == [True, True]


def test_which_credentials_are_used(server: FakeAws, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[work]\naws_access_key_id=AKIDWORK\naws_secret_access_key=x\n")
    command = (
        """echo '{"Version": 1, "AccessKeyId": "AKIDTOOL", "SecretAccessKey": "x","""
        """ "SessionToken": "t", "Expiration": "2100-01-01T00:00:00Z"}'"""
    )
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\n{command}\n")
    tool.chmod(0o700)
    (tmp_path / "config").write_text(f"[profile tool]\ncredential_process={tool}\n")
    environ = {"AWS_ACCESS_KEY_ID": "AKIDENVIRON", "AWS_SECRET_ACCESS_KEY": "x", **server.environ}
    region = "eu-west-1"
    told: list[tuple[str, str, float | None]] = []
    for aws in (
        INLINE,
        Aws(region=region, profile="work"),
        Aws(region=region, profile="tool"),
        Aws(region=region),
    ):
        clients = AwsClients(aws, environ)
        found = clients.credentials()
        clients.close()
        assert (found.region, found.endpoint) == (region, environ["AWS_ENDPOINT_URL"])
        told.append((found.source, found.key, found.expires))

    assert told == [
        ("the file's own keys", "AKIDEXAMPLE", None),
        ("profile work, the keys of ~/.aws/credentials", "AKIDWORK", None),
        (
            "profile tool, its credential_process",
            "AKIDTOOL",
            dt.datetime(2100, 1, 1, tzinfo=dt.UTC).timestamp(),
        ),
        ("the environment", "AKIDENVIRON", None),
    ]


def test_no_credentials_to_tell_of() -> None:
    clients = AwsClients(Aws(region="eu-west-1"), {})
    with pytest.raises(AwsCredentialsError, match="no AWS credentials were found"):
        clients.credentials()
    clients.close()
