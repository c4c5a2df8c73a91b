from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from session_proxy.errors import ExitCode
from session_proxy.outbound.links import LinkFailedError
from session_proxy.outbound.relay_dialing import SecretTokens, dial_settings
from session_proxy.profile.model import RelayEndpoint
from session_proxy.profile.secret_sources import SecretSources
from tests.support.relay_tokens import make_certificate
from tunnel_relay.errors import TokenUnavailableError

ENDPOINTS = [RelayEndpoint(url="wss://a.example"), RelayEndpoint(url="wss://b.example", priority=2, weight=3)]


async def test_a_token_is_read_again_when_another_one_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    tokens = SecretTokens(SecretSources(tmp_path, {}).read("file:token"))
    file.write_text("second\n")
    assert await tokens(anew=False) == "first"
    assert await tokens(anew=True) == "second"
    assert await tokens(anew=False) == "second"
    file.unlink()
    with pytest.raises(TokenUnavailableError, match=r"token: cannot read .*no such file"):
        await tokens(anew=True)


async def test_a_token_that_is_written_out_stays() -> None:
    tokens = SecretTokens(SecretSources(Path(), {}).read("written.out"))
    assert await tokens(anew=True) == "written.out"
    assert "written" not in repr(tokens)


async def test_another_source_is_the_one_from_then_on() -> None:
    sources = SecretSources(Path(), {})
    tokens = SecretTokens(sources.read("one"))
    tokens.change(sources.read("two"))
    for anew in (False, True):
        assert await tokens(anew=anew) == "two"


@pytest.mark.parametrize("text", ["eyJ.eyJ.x\neyJ.eyJ.y", "eyJ.eyJ.x y", "eyJ.eyJ.\x1b", "eyJ.eyJ.ü"])
async def test_what_can_be_no_token_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(f"{text}\n")
    tokens = SecretTokens(SecretSources(tmp_path, {}).read("file:token"))
    for anew in (False, True):
        with pytest.raises(TokenUnavailableError, match="nothing but the token") as caught:
            await tokens(anew=anew)
        assert "eyJ" not in str(caught.value)


async def test_servers_and_their_proxies() -> None:
    environ = {"https_proxy": "proxy.example:3128", "no_proxy": "b.example"}
    settings = await dial_settings(ENDPOINTS, None, environ, query=[("agent", "nas")])
    assert [(each.url, each.priority, each.weight) for each in settings.endpoints] == [
        ("wss://a.example", 1, 1),
        ("wss://b.example", 2, 3),
    ]
    assert settings.query == [("agent", "nas")]
    assert settings.proxy("wss://a.example") == "http://proxy.example:3128"
    assert settings.proxy("wss://b.example") is None
    assert settings.ssl_context is None


async def test_more_authorities_are_believed(tmp_path: Path) -> None:
    certificate, _ = make_certificate().write(tmp_path)
    settings = await dial_settings(ENDPOINTS, certificate, {})
    assert settings.ssl_context is not None
    before = len(ssl.create_default_context().get_ca_certs())
    assert len(settings.ssl_context.get_ca_certs()) == before + 1


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_authorities_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(LinkFailedError, match=r"ca: .*ca\.pem cannot be used: ") as caught:
        await dial_settings(ENDPOINTS, file, {})
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    assert caught.value.needs_person
