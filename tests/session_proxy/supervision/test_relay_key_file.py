"""Keys whose file is replaced while a relay runs."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.profile.relay_model import RelayJwt
from session_proxy.profile.secret import Secret
from session_proxy.profile.secret_sources import SecretSources
from session_proxy.supervision import relay_key_file
from session_proxy.supervision.relay_key_file import KeyFile
from tests.support.relay_daemon import load_relay, open_relay_daemon
from tests.support.relay_tokens import SECRET, make_token
from tests.support.tunnels import eventually
from tunnel_relay.background import open_background
from tunnel_relay.errors import WebSocketClosedError, WebSocketRejectedError
from tunnel_relay.protocol.tokens import Verifier, read_keys
from tunnel_relay.protocol.upgrade import UNAUTHORIZED

SECONDS = 90
OTHER = SECRET[::-1]
THIRD = OTHER.upper()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_key_file, "LOOK", 0.001)


def verifier(secret: str) -> Verifier:
    return Verifier(read_keys(secret, ["HS256"]), "session-proxy")


def replace(file: Path, text: str) -> None:
    """Put another file in the place of *file*, as those do who know that it is being read."""
    fresh = file.with_name("fresh")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.rename(file)


async def test_who_came_with_a_key_that_is_gone_is_sent_away(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            async with served.link(make_token("alice")) as websocket:
                # What is there at the first look is what was read at the start.
                assert served.lines("keys") == []
                replace(tmp_path / "secret", OTHER)
                with pytest.raises(WebSocketClosedError) as closed:
                    await websocket.receive()
                assert closed.value.code == UNAUTHORIZED
            line = await served.line("keys")
            assert SECRET not in str(served.log)
            assert OTHER not in str(served.log)
            assert "'keys': 1" in str(line)
            with pytest.raises(WebSocketRejectedError) as caught:
                async with served.link(make_token("alice")):
                    pass
            assert caught.value.status == 401
            async with served.link(make_token("alice", secret=OTHER)):
                pass
        [_, changed] = [entry for entry in served.audited() if entry["action"] == "configure"]
        assert "the file has changed" in str(changed["details"])


async def test_a_file_that_is_wrong_is_told_once_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with trio.fail_after(SECONDS):
        async with (
            open_relay_daemon(load_relay(tmp_path)) as served,
            served.link(make_token("alice")),
        ):
            for text, said in (("two\nlines", "a secret is one line"), ("", "is empty")):
                count = len(served.lines("keys"))
                replace(file, text)
                await eventually(lambda count=count: len(served.lines("keys")) > count)
                assert said in str(served.lines("keys")[-1])
                assert len(served.lines("keys")) == count + 1
            file.unlink()
            await eventually(lambda: "no such file" in str(served.lines("keys")[-1]))
            assert all("what was read before holds on" in str(line) for line in served.lines("keys"))
            async with served.link(make_token("alice")):
                pass
            assert served.daemon.status()["clients"] == 1
            replace(file, OTHER)
            await eventually(lambda: served.daemon.status()["clients"] == 0)


async def test_another_file_is_the_one_from_then_on(tmp_path: Path) -> None:
    trusted: list[Verifier] = []
    sources = SecretSources(tmp_path, {})

    def jwt(name: str) -> RelayJwt:
        replace(tmp_path / name, SECRET)
        return RelayJwt(algorithms=("HS256",), keys=sources.read(f"file:{name}"))

    with trio.fail_after(SECONDS):
        async with open_background() as nursery:
            keys = KeyFile(trusted.append, pytest.fail, jwt("one"), verifier(SECRET))
            nursery.start_soon(keys.run)
            keys.change(jwt("two"), verifier(SECRET))
            # Nobody looks there any more.
            replace(tmp_path / "one", THIRD)
            replace(tmp_path / "two", OTHER)
            await eventually(lambda: trusted)
            # What is written out does not change.
            keys.change(attrs.evolve(jwt("two"), keys=Secret("literal", "", SECRET)), verifier(SECRET))
            replace(tmp_path / "two", THIRD)
            # It has changed before the first look.
            keys.change(jwt("three"), verifier(OTHER))
            await eventually(lambda: len(trusted) == 2)
            assert trusted == [verifier(OTHER), verifier(SECRET)]
