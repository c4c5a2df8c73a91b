from __future__ import annotations

from pathlib import Path

from session_proxy.diagnosis.report import Diagnosis
from session_proxy.profile.awg_loading import load_awg_server
from session_proxy.profile.relay_loading import load_relay_server
from tests.support.awg_files import ServerText
from tests.support.examined import examined
from tests.support.relay_daemon import write_relay
from tests.support.relay_tokens import make_certificate
from tests.support.stages import stage_of
from tunnel_relay.stages import Step


async def relay(folder: Path, *, days: float = 90) -> Diagnosis:
    make_certificate(since=-100, until=days).write(folder)
    file = write_relay(folder, more='[tls]\ncertificate = "file:cert.pem"\nkey = "file:key.pem"\n')
    server = load_relay_server(file, environ={"HOME": str(folder)})
    [found] = await examined(server, {"HOME": str(folder)}, base=folder)
    return found


async def test_a_relay_server(tmp_path: Path) -> None:
    found = await relay(tmp_path)

    assert (found.name, found.kind, found.outcome) == ("relay", "relay-server", "ok")
    stage = stage_of(found.stages, Step.CREDENTIALS)
    assert stage.found == "tokens signed with HS256, certificate good for 89 days"


async def test_a_certificate_that_ends_soon(tmp_path: Path) -> None:
    found = await relay(tmp_path, days=5.5)

    assert stage_of(found.stages, Step.CREDENTIALS).cause == "the server's certificate expires in 5 days"
    assert (found.outcome, found.exit_code) == ("warning", 0)


async def test_secrets_that_others_can_read(tmp_path: Path) -> None:
    server = load_relay_server(write_relay(tmp_path), environ={"HOME": str(tmp_path)})
    (tmp_path / "secret").chmod(0o640)
    [found] = await examined(server, {"HOME": str(tmp_path)}, base=tmp_path)

    stage = stage_of(found.stages, Step.CREDENTIALS)
    assert stage.cause == f"jwt.keys: {tmp_path / 'secret'} can be read by others (mode 0640)"


async def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    found = await relay(tmp_path, days=-2)

    assert found.exit_code == 78
    assert stage_of(found.stages, Step.CREDENTIALS).cause.startswith(
        f"the certificate in {tmp_path / 'cert.pem'} expired on "
    )


async def test_an_awg_server(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(str(ServerText()))
    file.chmod(0o600)
    server = load_awg_server(file, environ={})
    [found] = await examined(server, {}, base=tmp_path)

    assert (found.name, found.kind) == ("server", "awg-server")
    assert stage_of(found.stages, Step.CREDENTIALS).found.startswith("keys of ")


async def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    make_certificate().write(tmp_path)
    file = write_relay(tmp_path, more='[tls]\ncertificate = "file:cert.pem"\nkey = "file:key.pem"\n')
    server = load_relay_server(file, environ={"HOME": str(tmp_path)})
    (tmp_path / "key.pem").chmod(0o644)
    [found] = await examined(server, {"HOME": str(tmp_path)}, base=tmp_path)
    assert stage_of(found.stages, Step.CREDENTIALS).cause.startswith(f"{tmp_path / 'key.pem'} can be read")

    (tmp_path / "cert.pem").write_text("nonsense")
    [found] = await examined(server, {"HOME": str(tmp_path)}, base=tmp_path)
    assert found.exit_code == 78
    assert stage_of(found.stages, Step.CREDENTIALS).cause == f"{tmp_path / 'cert.pem'} holds no certificate"
