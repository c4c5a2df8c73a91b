"""Peers of an awg-server that come and go while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from awg_obfs.protocol.keys import public_key_of
from session_proxy.errors import Problem, ProfileError, ReloadError
from session_proxy.profile.awg_model import AwgConf, AwgPeer, AwgServer
from session_proxy.profile.loading import Warn
from session_proxy.profile.model import Admin, ListenAddress
from session_proxy.supervision.awg_reload import compare_awg_servers
from session_proxy.supervision.reload import Reloadable
from session_proxy.target import Target
from tests.session_proxy.supervision.test_awg_server import Served, config, secret, serve
from tests.support.tunnels import eventually, open_destination

TABLET_KEY = bytes(range(7, 39))
TABLET = AwgPeer(name="tablet", public_key=secret(public_key_of(TABLET_KEY)))


async def reload(served: Served, server: AwgServer) -> list[str]:
    """Have the daemon take over *server*; return what it says has changed."""

    def load(warn: Warn) -> AwgServer:
        warn("mind the gap")
        return server

    served.daemon.load = load
    assert isinstance(served.daemon, Reloadable)
    async with served.daemon.prepare() as change:
        assert change.drain == server.limits.drain
        assert change.commit() == [served.address]
        return change.changes.lines()


async def test_who_is_new_may_come_in_and_who_is_gone_is_parted_from(tmp_path: Path) -> None:
    old = config(tmp_path)
    laptop, phone = old.peers
    async with open_destination() as port, serve(old) as served:
        target = Target.of("127.0.0.1", port)
        new = attrs.evolve(old, peers=(laptop, TABLET))
        async with served.client() as at_laptop:
            stream = await at_laptop.connect_tcp(target)
            assert await reload(served, new) == ["changed: peer tablet (new), peer phone (removed)"]
            assert "mind the gap" in str(served.log)
            async with served.client(private_key=secret(TABLET_KEY), preshared_key=None) as at_tablet:
                other = await at_tablet.connect_tcp(target)
                for each in (stream, other):
                    await each.send_all(b"!")
                    assert await each.receive_some() == b"!"
                assert list(cast("dict[str, object]", served.daemon.status()["peers"])) == [
                    "laptop",
                    "tablet",
                ]
                assert 'sproxy_awg_sessions{link="tablet"} 1.0' in served.metrics()
                assert not [line for line in served.metrics() if '"phone"' in line]

                assert await reload(served, attrs.evolve(old, peers=(laptop, phone))) == [
                    "changed: peer phone (new), peer tablet (removed)"
                ]
                with pytest.raises(trio.BrokenResourceError):
                    await other.receive_some()
                await eventually(lambda: [line for line in served.log if line.get("client") == "tablet"])
            await stream.send_all(b"?")
            assert await stream.receive_some() == b"?"


async def test_a_file_that_is_wrong_changes_nothing(tmp_path: Path) -> None:
    def fail(_warn: Warn) -> AwgServer:
        raise ProfileError(None, [Problem("peers", "there is none")])

    async with serve(config(tmp_path)) as served:
        daemon, before = served.daemon, served.daemon.config
        with pytest.raises(ReloadError, match="without a file"):
            async with daemon.prepare():
                pass
        daemon.load = fail
        with pytest.raises(ProfileError, match="there is none"):
            async with daemon.prepare():
                pass
        with pytest.raises(ReloadError, match=r"^mtu cannot change while the server runs; restart it$"):
            await reload(served, attrs.evolve(before, mtu=1400, peers=(TABLET,)))
        assert daemon.config is before
        assert list(cast("dict[str, object]", daemon.status()["peers"])) == ["laptop", "phone"]


def test_what_is_said_of_a_change(tmp_path: Path) -> None:
    old = config(tmp_path)
    laptop, phone = old.peers
    changed = attrs.evolve(phone, preshared_key=laptop.preshared_key)
    assert compare_awg_servers(old, attrs.evolve(old, peers=(laptop, changed))).lines() == [
        "changed: peer phone (changed)"
    ]
    assert compare_awg_servers(old, attrs.evolve(old, peers=(phone, laptop))).lines() == ["changed: peers"]
    others = attrs.evolve(
        old,
        name="other",
        file=None,
        conf=AwgConf(peer=("x",)),
        admin=Admin(listen=ListenAddress("127.0.0.1", 2)),
    )
    assert compare_awg_servers(old, others).lines() == ["changed: admin, conf.peer"]
    with pytest.raises(ReloadError, match=r"^limits\.streams cannot change"):
        compare_awg_servers(old, attrs.evolve(old, limits=attrs.evolve(old.limits, streams=3)))
