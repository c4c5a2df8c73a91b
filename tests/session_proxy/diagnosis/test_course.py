from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.diagnosis.course import check_secret_file, explain, make_setting
from session_proxy.errors import DialError, NotAllowedError
from session_proxy.events import Notice, UpstreamUp
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.transport import Services
from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import SecretSources
from tests.support.stages import stage_of
from tunnel_relay.category import Category
from tunnel_relay.errors import (
    HostKeyError,
    SshAuthenticationError,
    SshDisconnectedError,
    SshKeyError,
    WebSocketRejectedError,
)
from tunnel_relay.stages import Step, Trouble


@pytest.mark.parametrize(
    ("exc", "trouble"),
    [
        (SshKeyError("no key; make one"), Trouble("no key", "make one", Category.CONFIGURATION)),
        (HostKeyError("another key; look"), Trouble("another key", "look", Category.AUTHENTICATION)),
        (SshAuthenticationError("no"), Trouble("no", "", Category.AUTHENTICATION)),
        (SshDisconnectedError("gone"), Trouble("gone", "", Category.NETWORK)),
        (LinkFailedError("no way"), Trouble("no way", "", Category.NETWORK)),
        (NotAllowedError("forbidden; ask"), Trouble("forbidden", "ask", Category.AUTHENTICATION)),
        (DialError(), Trouble("DialError", "", Category.NETWORK)),
        (
            WebSocketRejectedError(503),
            Trouble("the server answered the WebSocket upgrade with HTTP status 503", "", Category.SERVER),
        ),
        (OSError(5, "Input/output error"), Trouble("Input/output error", "", Category.NETWORK)),
    ],
)
def test_what_exceptions_mean(exc: Exception, trouble: Trouble) -> None:
    assert explain(exc) == trouble


async def test_what_transports_warn_of_belongs_to_the_stage() -> None:
    setting = make_setting((Step.SSH,), Services(), Path())

    async def work() -> None:
        with setting.course.stage(Step.SSH):
            setting.services.notify(Notice("dev", "the key is old; make another", "warning"))
            setting.services.notify(Notice("dev", "hello"))
            setting.services.notify(UpstreamUp("dev", "i-1", 1.0))
        setting.services.notify(Notice("dev", "too late", "warning"))

    stage = stage_of(await setting.course.run(work), Step.SSH)

    assert (stage.outcome, stage.cause, stage.fix) == ("warning", "the key is old", "make another")


async def test_files_of_secrets_that_others_can_read(tmp_path: Path) -> None:
    file = tmp_path / "psk"
    file.write_text("secret")
    file.chmod(0o644)
    setting = make_setting((Step.CREDENTIALS,), Services(), tmp_path)
    sources = SecretSources(tmp_path, {})
    secrets = [
        None,
        sources.read("literal"),
        Secret("file", "~nobody-of-that-name/x", "secret"),
        sources.read("file:psk"),
    ]

    async def work() -> None:
        with setting.course.stage(Step.CREDENTIALS) as notes:
            for secret in secrets:
                check_secret_file(notes, "preshared_key", secret, setting)

    [stage] = await setting.course.run(work)

    assert stage.cause == f"preshared_key: {file} can be read by others (mode 0644)"
    assert stage.fix == f"run: chmod 600 {file}"
