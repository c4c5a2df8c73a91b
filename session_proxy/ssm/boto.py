"""The only file that imports boto3. Everything here blocks: `session_proxy.ssm.control` calls it in threads.

Importing it takes a third of a second, so that is done in a thread too, and only where an upstream needs AWS.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import boto3.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.parsers import ResponseParserError

from session_proxy.profile.model import Aws
from session_proxy.profile.secret import Secret
from session_proxy.ssm.aws_errors import Call, translate
from session_proxy.ssm.errors import AwsConfigurationError, AwsCredentialsError
from session_proxy.ssm.session import AwsCredentials

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2_instance_connect import EC2InstanceConnectClient
    from mypy_boto3_ssm import SSMClient

# AWS answers control calls in well under a second; StartSession on a busy account has been seen to take ten.
CONNECT_LIMIT = 10
READ_LIMIT = 30

# What botocore calls the sources of credentials, in words.
SOURCES = {
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a web identity's role",
    "config-file": "the keys of ~/.aws/config",
    "container-role": "the container's role",
    "custom-process": "its credential_process",
    "env": "the environment",
    "explicit": "the environment",
    "iam-role": "the instance's role",
    "shared-credentials-file": "the keys of ~/.aws/credentials",
    "sso": "an SSO session",
}


@attrs.frozen
class Instance:
    """A running EC2 instance."""

    id: str
    launched: float


@attrs.define(eq=False)
class AwsClients:
    """The boto3 clients of one upstream, made when they are first needed.

    Credentials, region and endpoints that *environ* holds are handed to boto3, which finds the same ones by itself
    where *environ* is the process's own; the rest of its chain is left alone.

    A boto3 session must not be shared by threads, its clients may: so clients are made under a lock.
    """

    aws: Aws
    environ: Mapping[str, str] = attrs.field(repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)
    _session: boto3.session.Session | None = attrs.field(default=None, init=False, repr=False)
    _ssm: SSMClient | None = attrs.field(default=None, init=False, repr=False)
    _ec2: EC2Client | None = attrs.field(default=None, init=False, repr=False)
    _connect: EC2InstanceConnectClient | None = attrs.field(default=None, init=False, repr=False)

    def start_session(
        self, target: str, document: str, parameters: Mapping[str, Sequence[str]]
    ) -> tuple[str, str, str]:
        """Return the session's id, token and stream URL."""
        with self._translated(Call("StartSession", "ssm:StartSession", target)):
            answer = self.ssm().start_session(
                Target=target,
                DocumentName=document,
                Parameters={key: list(values) for key, values in parameters.items()},
            )
        return answer.get("SessionId", ""), answer.get("TokenValue", ""), answer.get("StreamUrl", "")

    def resume_session(self, session_id: str) -> tuple[str, str, str]:
        """Return the session's id, its new token and a stream URL; no token where the session is over."""
        with self._translated(Call("ResumeSession", "ssm:ResumeSession", session_id)):
            answer = self.ssm().resume_session(SessionId=session_id)
        return answer.get("SessionId", ""), answer.get("TokenValue", ""), answer.get("StreamUrl", "")

    def terminate_session(self, session_id: str) -> None:
        """End the session at AWS."""
        with self._translated(Call("TerminateSession", "ssm:TerminateSession", session_id)):
            self.ssm().terminate_session(SessionId=session_id)

    def running_instances(self, tag: str, value: str) -> list[Instance]:
        """Return the running instances with that tag."""
        with self._translated(Call("DescribeInstances", "ec2:DescribeInstances", f"tag:{tag}={value}")):
            pages = (
                self.ec2()
                .get_paginator("describe_instances")
                .paginate(
                    Filters=[
                        {"Name": f"tag:{tag}", "Values": [value]},
                        {"Name": "instance-state-name", "Values": ["running"]},
                    ]
                )
            )
            return [
                Instance(
                    instance.get("InstanceId", ""),
                    launched.timestamp() if (launched := instance.get("LaunchTime")) is not None else 0.0,
                )
                for page in pages
                for reservation in page.get("Reservations", [])
                for instance in reservation.get("Instances", [])
            ]

    def send_ssh_public_key(self, instance: str, user: str, public_key: str) -> None:
        """Let *public_key* log in as *user* for the next 60 seconds."""
        with self._translated(Call("SendSSHPublicKey", "ec2-instance-connect:SendSSHPublicKey", instance)):
            self.instance_connect().send_ssh_public_key(
                InstanceId=instance, InstanceOSUser=user, SSHPublicKey=public_key
            )

    def credentials(self) -> AwsCredentials:
        """Return which credentials are used; temporary ones are fetched, or renewed where that is due."""
        with self._translated(Call("Reading the credentials", "sts:GetCallerIdentity", "this account")):
            endpoint = self.ssm().meta.endpoint_url
            with self._lock:
                session = self._open()
                found = session.get_credentials()
            if found is None:
                raise NoCredentialsError
            key = found.get_frozen_credentials().access_key
            return AwsCredentials(
                source=self._source(found.method),
                key=key or "",
                expires=_expiry(found),
                region=session.region_name or "",
                endpoint=endpoint,
            )

    # The stubs of boto3 overload `client` for every service of AWS, and pyright complains of those that are
    # not installed.

    def ssm(self) -> SSMClient:
        """Return the client for Session Manager."""
        with self._lock:
            if self._ssm is None:
                self._ssm = self._open().client(  # pyright: ignore[reportUnknownMemberType]
                    "ssm", config=self._config(), endpoint_url=self._endpoint("SSM")
                )
            return self._ssm

    def ec2(self) -> EC2Client:
        """Return the client for EC2."""
        with self._lock:
            if self._ec2 is None:
                self._ec2 = self._open().client(  # pyright: ignore[reportUnknownMemberType]
                    "ec2", config=self._config(), endpoint_url=self._endpoint("EC2")
                )
            return self._ec2

    def instance_connect(self) -> EC2InstanceConnectClient:
        """Return the client for EC2 Instance Connect."""
        with self._lock:
            if self._connect is None:
                self._connect = self._open().client(  # pyright: ignore[reportUnknownMemberType]
                    "ec2-instance-connect",
                    config=self._config(),
                    endpoint_url=self._endpoint("EC2_INSTANCE_CONNECT"),
                )
            return self._connect

    def close(self) -> None:
        """Give back the sockets that boto3 keeps open, and forget the credentials that it has read."""
        with self._lock:
            for client in (self._ssm, self._ec2, self._connect):
                if client is not None:
                    client.close()
            self._ssm = self._ec2 = self._connect = self._session = None

    def _open(self) -> boto3.session.Session:
        if self._session is None:
            aws, environ = self.aws, self.environ
            region = aws.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
            profile = aws.profile or environ.get("AWS_PROFILE")
            if aws.access_key is not None:
                key, secret, token = map(_reveal, (aws.access_key, aws.secret_key, aws.session_token))
                profile = None
            elif profile is None:
                names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
                key, secret, token = map(environ.get, names)
            else:
                key = secret = token = None
            self._session = boto3.session.Session(
                profile_name=profile,
                region_name=region,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                aws_session_token=token,
            )
        return self._session

    def _source(self, method: str) -> str:
        if self.aws.access_key is not None:
            return "the file's own keys"
        if profile := self.aws.profile or self.environ.get("AWS_PROFILE"):
            return f"profile {profile}, {SOURCES.get(method, method)}"
        # Those that the environment holds were handed over, so botocore calls them explicit.
        return SOURCES.get(method, method)

    def _config(self) -> Config:
        # Proxies are left to botocore, which reads HTTPS_PROXY and NO_PROXY itself.
        return Config(
            connect_timeout=CONNECT_LIMIT,
            read_timeout=READ_LIMIT,
            retries={"mode": "standard"},
            user_agent_extra="session-proxy",
        )

    def _endpoint(self, service: str) -> str | None:
        """Return what *environ* says; `None` leaves it to botocore, which also reads its own files."""
        if self.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
            return None
        return self.environ.get(f"AWS_ENDPOINT_URL_{service}") or self.environ.get("AWS_ENDPOINT_URL") or None

    @contextmanager
    def _translated(self, call: Call) -> Generator[None, None, None]:
        try:
            yield
        except (BotoCoreError, ClientError, ResponseParserError) as exc:
            error = translate(exc, call, self.aws.profile)
            if isinstance(error, AwsCredentialsError):
                # boto3 keeps what it once read from ~/.aws; a person who renews it should not have to restart us.
                self.close()
            raise error from exc
        except ValueError as exc:
            # botocore checks an endpoint's form with a bare ValueError.
            raise AwsConfigurationError(f"{call.operation} cannot be sent: {exc}") from exc
        except EOFError as exc:
            # An assumed role with MFA asks for a code on the terminal, and there is none.
            raise AwsConfigurationError(
                "the AWS profile asks for an MFA code, and there is no terminal to ask on;"
                " use credentials that need none, such as `aws sso login`"
            ) from exc


def _expiry(credentials: Credentials) -> float | None:
    """Return until when *credentials* hold, where they say; botocore has no public way to ask."""
    expires: object = getattr(credentials, "_expiry_time", None)
    return expires.timestamp() if isinstance(expires, dt.datetime) else None


def _reveal(secret: Secret | None) -> str | None:
    return secret.reveal() if secret is not None else None
