"""What of a relay.toml may change while its server runs, and what becomes of those who are linked."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from session_proxy.errors import ProfileError, ReloadError
from session_proxy.profile.model import Admin, ListenAddress
from session_proxy.supervision.relay_reload import compare_relays
from session_proxy.supervision.reload import Reloadable
from tests.support.relay_daemon import Served, load_relay, open_relay_daemon
from tests.support.relay_tokens import SECRET, make_token
from tunnel_relay.errors import WebSocketClosedError, WebSocketRejectedError
from tunnel_relay.policy.access import Held

SECONDS = 90
OTHER = SECRET[::-1]


async def reload(served: Served, folder: Path, **parts: str) -> list[str]:
    """Have the daemon take over another file; return what it says has changed."""
    served.daemon.load = lambda _warn: load_relay(folder, **parts)
    assert isinstance(served.daemon, Reloadable)
    async with served.daemon.prepare() as change:
        assert change.commit() == [served.address]
        return change.changes.lines()


async def test_tiers_and_limits_hold_for_those_who_are_there(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served, served.link(make_token("alice")):
            more = "[tiers.free]\nconnections = 1\n[limits]\ndrain = 0.1\nhandshake = 3\n"
            changed = await reload(served, tmp_path, more=more)
            assert changed == ["changed: tiers, limits.handshake, limits.drain"]
            with pytest.raises(WebSocketRejectedError) as caught:
                async with served.link(make_token("alice")):
                    pass
            assert caught.value.status == 429
            assert served.daemon.config.limits.drain == 0.1
        entries = [line for line in served.audited() if line["action"] == "configure"]
        assert [dict(entry["details"]).get("reload") for entry in entries] == [  # type: ignore[call-overload]
            None,
            "changed: tiers, limits.handshake, limits.drain",
        ]
        first, second = (dict(entry["details"])["sha256"] for entry in entries)  # type: ignore[call-overload]
        assert first != second


async def test_other_keys_let_others_in(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            async with served.link(make_token("alice")) as websocket:
                keys = f'[jwt]\nalgorithms = "HS256"\nkeys = "{OTHER}"\n'
                await reload(served, tmp_path, keys=keys)
                with pytest.raises(WebSocketClosedError) as caught:
                    await websocket.receive()
                assert caught.value.code == 4401
            async with served.link(make_token("alice", secret=OTHER)):
                pass


async def test_pages_are_for_another_token(tmp_path: Path) -> None:
    request = b"GET /metrics HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer please\r\n\r\n"
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            assert (await served.ask(request)).startswith(b"HTTP/1.1 404 ")
            assert await reload(served, tmp_path, top='metrics_token = "please"') == [
                "changed: metrics_token"
            ]
            assert (await served.ask(request)).startswith(b"HTTP/1.1 200 ")


async def test_a_file_that_is_wrong_changes_nothing(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served, served.link(make_token("alice")):
            before = served.daemon.config
            with pytest.raises(ProfileError):
                await reload(served, tmp_path, top="nonsense = 1")
            with pytest.raises(ReloadError, match="audit"):
                await reload(served, tmp_path, audit='"other.jsonl"')
            assert served.daemon.config is before
            service = served.daemon._service
            assert service is not None
            assert service.access.held("alice", Held.CONNECTIONS) == 1


async def test_there_has_to_be_a_file(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with open_relay_daemon(load_relay(tmp_path)) as served:
            with pytest.raises(ReloadError, match="without a file"):
                async with served.daemon.prepare():
                    pass


def test_what_cannot_change(tmp_path: Path) -> None:
    old = load_relay(tmp_path)
    new = attrs.evolve(
        old, listen=(ListenAddress("127.0.0.1", 1),), admin=Admin(listen=ListenAddress("127.0.0.1", 2))
    )
    with pytest.raises(ReloadError, match="listen cannot change while the server runs; restart it"):
        compare_relays(old, new)
    revoked = attrs.evolve(old, jwt=attrs.evolve(old.jwt, revoked=tmp_path / "other"))
    with pytest.raises(ReloadError, match=r"jwt\.revoked cannot"):
        compare_relays(old, revoked)
    assert compare_relays(old, attrs.evolve(old, name="other", file=None)).lines() == []
    assert compare_relays(old, attrs.evolve(new, listen=old.listen)).lines() == ["changed: admin"]


def test_whom_a_relay_logs_in_for_may_change_where_there_is_somebody(tmp_path: Path) -> None:
    (tmp_path / "alice.key").write_text("a key")
    users = '[users.{}.ssh]\nuser = "me"\nkey = "alice.key"\n'
    nobody = load_relay(tmp_path)
    alice = load_relay(tmp_path, more=users.format("alice"))
    both = load_relay(tmp_path, more=f"{users.format('alice')}{users.format('bob')}[pool]\nwarm = 2\n")
    for old, new in ((alice, both), (both, alice), (both, nobody)):
        assert compare_relays(old, new).settings
    with pytest.raises(ReloadError, match=r"users.* cannot change while the server runs"):
        compare_relays(nobody, alice)
