"""An ssh ProxyCommand: ``python -m benchmarks.plugin_session PLUGIN INSTANCE PORT`` hands a session on.

It does what ``aws ssm start-session`` does, without the CLI: AWS's plugin takes the place of this process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

DOCUMENT = "AWS-StartSSHSession"


def main() -> None:
    """Call StartSession, then become the plugin."""
    binary, instance, port = sys.argv[1:]
    parameters = {"portNumber": [port]}
    request = {"Target": instance, "DocumentName": DOCUMENT, "Parameters": parameters}
    client: SSMClient = boto3.client("ssm")  # pyright: ignore[reportUnknownMemberType]
    response = client.start_session(Target=instance, DocumentName=DOCUMENT, Parameters=parameters)
    session = {
        "SessionId": response["SessionId"],
        "TokenValue": response["TokenValue"],
        "StreamUrl": response["StreamUrl"],
    }
    endpoint, region = client.meta.endpoint_url, client.meta.region_name
    os.execvp(
        binary, [binary, json.dumps(session), region, "StartSession", "", json.dumps(request), endpoint]
    )


if __name__ == "__main__":
    main()
