"""From the command line to a proxy that could run."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_proxy.cli.proxying import ProxyComposer
from session_proxy.cli.run import SingleUpstream
from session_proxy.errors import ProfileError
from session_proxy.observability.log_settings import LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.sink import LineSink
from session_proxy.profile.model import ListenAddress, SsmUpstream


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7", "SECRET": "s3cret"}


def composer(environ: dict[str, str], **given: object) -> ProxyComposer:
    said: dict[str, object] = {"file": None, "single": None, "listen": None, "name": None, **given}
    return ProxyComposer(environ=environ, **said)  # pyright: ignore[reportArgumentType]


def test_a_profile_becomes_a_proxy_of_its_name(tmp_path: Path, environ: dict[str, str]) -> None:
    file = tmp_path / "my site.toml"
    file.write_text('[limits]\ndrain = 3\n[admin]\nlisten = "127.0.0.1:0"\n')
    lines: list[str] = []

    made = composer(environ, file=file)(make_logger(lines.append, LogSettings()), LineSink(2))

    assert (made.settings.name, made.settings.drain) == ("my-site", 3)
    assert made.settings.admin == ListenAddress("127.0.0.1", 0)
    assert made.settings.control == Path("/run/user/7/session-proxy/my-site.sock")
    assert b"sproxy_ready 0.0" in made.daemon.render_metrics("")[0]
    assert lines == []


def test_what_the_loader_warns_of_is_logged(tmp_path: Path, environ: dict[str, str]) -> None:
    file = tmp_path / "dev.toml"
    file.write_text('[auth]\nuser = "a"\npass = "in the open"\n')
    file.chmod(0o644)
    lines: list[str] = []

    composer(environ, file=file, name="other").load(make_logger(lines.append, LogSettings()))

    assert len(lines) == 1
    assert "warning profile message=" in lines[0]
    assert "in the open" not in lines[0]


def test_a_listen_option_wins(tmp_path: Path, environ: dict[str, str]) -> None:
    file = tmp_path / "dev.toml"
    file.write_text('listen = "127.0.0.1:1"\n')

    profile = composer(environ, file=file, listen="127.0.0.1:2").load(make_logger(print, LogSettings()))

    assert profile.listen == (ListenAddress("127.0.0.1", 2),)


def test_an_instance_is_a_profile_of_its_own(environ: dict[str, str]) -> None:
    single = SingleUpstream(
        instance="i-0123456789abcdef0", user="me", key=None, aws_profile=None, region="eu-west-1"
    )

    profile = composer(environ, single=single, listen="127.0.0.1:0").load(make_logger(print, LogSettings()))

    assert profile.name == "i-0123456789abcdef0"
    [upstream] = profile.upstreams.values()
    assert isinstance(upstream, SsmUpstream)
    assert (upstream.instances, upstream.ssh.user, upstream.aws.region) == (
        ("i-0123456789abcdef0",),
        "me",
        "eu-west-1",
    )


def test_a_bad_profile_stops_it(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ProfileError, match=r"absent\.toml"):
        composer(environ, file=tmp_path / "absent.toml").load(make_logger(print, LogSettings()))


def test_a_profile_is_read_again_from_where_it_was_found(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the working folder is by then, and with the options of the start."""
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text("[limits]\nidle = 1\n")
    made = composer(environ, listen="127.0.0.1:2", name="other")
    load = made.again(made.load(make_logger(print, LogSettings())))
    assert load is not None
    Path("config.toml").write_text('[limits]\nidle = 2\n[auth]\nuser = "a"\npass = "in the open"\n')
    Path("config.toml").chmod(0o644)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    warnings: list[str] = []

    profile = load(warnings.append)

    assert (profile.limits.idle, profile.name) == (2, "other")
    assert profile.listen == (ListenAddress("127.0.0.1", 2),)
    assert len(warnings) == 1


def test_a_single_instance_has_no_file_to_read_again(environ: dict[str, str]) -> None:
    single = SingleUpstream(instance="i-1", user=None, key=None, aws_profile=None, region="eu-west-1")
    made = composer(environ, single=single)

    assert made.again(made.load(make_logger(print, LogSettings()))) is None
