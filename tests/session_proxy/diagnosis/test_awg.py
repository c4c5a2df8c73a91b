"""The stages of an ``awg`` upstream, against a real server."""

from __future__ import annotations

import socket
from pathlib import Path

import attrs
import pytest

from awg_obfs.protocol.keys import key_to_text
from session_proxy.diagnosis.examination import cases_of, examine
from session_proxy.lab.awg_server import open_awg_server
from session_proxy.outbound.transport import Services
from session_proxy.profile.awg_model import AwgClient
from session_proxy.profile.model import Auth, ListenAddress, Profile
from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import SecretSources
from session_proxy.target import Target
from tests.support.examined import examined, examined_upstream
from tests.support.stages import failure_of, outcomes, stage_of
from tunnel_relay.stages import Step

STEPS = ("configuration", "credentials", "names", "reach", "handshake", "echo")


async def test_all_is_well(tmp_path: Path) -> None:
    async with open_awg_server("dev") as ways:
        upstream = ways["dev"]
        found = await examined_upstream(upstream, {})

        assert outcomes(found.stages) == dict.fromkeys(STEPS, "ok")
        assert stage_of(found.stages, Step.REACH).found == f"UDP to {upstream.endpoint}: nobody refuses"
        handshake = stage_of(found.stages, Step.HANDSHAKE).found
        assert handshake.startswith(f"session with {upstream.endpoint}, round trip ")
        assert stage_of(found.stages, Step.ECHO).found.startswith("the far end answers for 127.0.0.1:9: ")

        with socket.create_server(("127.0.0.1", 0)) as silent:
            target = f"127.0.0.1:{silent.getsockname()[1]}"
            found = await examined_upstream(upstream, {}, target=target)
        assert stage_of(found.stages, Step.ECHO).found.startswith(f"{target} opened in ")


async def test_a_session_that_a_running_proxy_has_is_left_alone() -> None:
    async with open_awg_server("dev") as ways:
        [case] = cases_of(
            Profile(upstreams={"dev": ways["dev"]}), None, {"dev": "p runs and has the session"}
        )
        [found] = await examine([case], Services(), Path(), tell=lambda _diagnosis: None)

    assert stage_of(found.stages, Step.HANDSHAKE).found == "p runs and has the session"
    echo = stage_of(found.stages, Step.ECHO)
    assert (echo.outcome, echo.cause) == (
        "skipped",
        "a session of our own would take over that one; stop it to try",
    )


async def test_the_file_of_a_client(tmp_path: Path) -> None:
    async with open_awg_server("dev") as ways:
        way = ways["dev"]
        (tmp_path / "client.key").write_text(way.private_key.reveal())
        (tmp_path / "client.key").chmod(0o644)
        client = AwgClient(
            listen=(ListenAddress("127.0.0.1", 0),),
            endpoint=way.endpoint,
            private_key=SecretSources(tmp_path, {}).read("file:client.key"),
            public_key=way.public_key,
            preshared_key=way.preshared_key,
            auth=Auth(user="me", password=Secret("literal", "", "x")),
            awg=way.awg,
            keepalive_padding=way.keepalive_padding,
        )
        [found] = await examined(client, {}, base=tmp_path)

    assert (found.name, found.kind, found.outcome) == ("server", "awg", "warning")
    stage = stage_of(found.stages, Step.CREDENTIALS)
    assert stage.cause == f"private_key: {tmp_path / 'client.key'} can be read by others (mode 0644)"


async def test_nothing_listens_there() -> None:
    async with open_awg_server("dev") as ways:
        upstream = ways["dev"]
        with socket.socket(type=socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        found = await examined_upstream(attrs.evolve(upstream, endpoint=Target.of("127.0.0.1", port)), {})

    stage = failure_of(found.stages)
    assert (stage.step, found.exit_code) == (Step.REACH, 69)
    assert stage.cause == f"nothing listens on UDP port {port} of 127.0.0.1"
    assert stage.fix == "start awg-server there, or correct the port"


async def test_no_way_there() -> None:
    async with open_awg_server("dev") as ways:
        far = attrs.evolve(ways["dev"], endpoint=Target.of("255.255.255.255", 9))
        found = await examined_upstream(far, {})

    stage = failure_of(found.stages)
    assert (stage.step, stage.cause) == (Step.REACH, "UDP to 255.255.255.255:9: permission denied")


OTHER_KEY = Secret("literal", "", key_to_text(bytes(range(32))))


@pytest.mark.parametrize(
    ("key", "cause", "fix"),
    [
        (
            "preshared_key",
            "answers, but the preshared keys differ",
            "make preshared_key the same on both sides",
        ),
        ("private_key", "no answer from ", "private_key, public_key, preshared_key and s1 to h4"),
    ],
)
async def test_keys_that_do_not_fit(key: str, cause: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_proxy.outbound.awg.PATIENCE", 6.0 if key == "private_key" else 1.0)
    async with open_awg_server("dev") as ways:
        found = await examined_upstream(attrs.evolve(ways["dev"], **{key: OTHER_KEY}), {})

    stage = failure_of(found.stages)
    assert (stage.step, found.exit_code) == (Step.HANDSHAKE, 69)
    assert cause in stage.cause
    assert fix in stage.fix
    assert outcomes(found.stages)["echo"] == "skipped"


async def test_a_public_key_that_is_none() -> None:
    async with open_awg_server("dev") as ways:
        zeros = attrs.evolve(ways["dev"], public_key=Secret("literal", "", "A" * 43 + "="))
        found = await examined_upstream(zeros, {})

    stage = failure_of(found.stages)
    assert (stage.step, found.exit_code) == (Step.HANDSHAKE, 78)
    assert stage.cause.startswith("public_key: ")
