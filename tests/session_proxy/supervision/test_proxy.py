"""The proxy as a daemon: one profile served on a real port, observed from every side."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

import attrs
import pytest
import trio
import trio.testing

from session_proxy.errors import ListenError, Problem, ProfileError, ReloadError, UpstreamStartError
from session_proxy.events import LinksChanged
from session_proxy.observability.http import HttpRequest
from session_proxy.observability.log_settings import LogFormat, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.metrics import Metrics
from session_proxy.outbound.transport import Services
from session_proxy.policy.rules import Rule
from session_proxy.profile.model import Admin, Limits, ListenAddress, Profile, SshUpstream
from session_proxy.supervision import proxy
from session_proxy.supervision.proxy import Load, ProxyDaemon, reachable_address
from session_proxy.supervision.reload import Reloadable
from session_proxy.target import Target

PROFILE = Profile(
    listen=(ListenAddress("127.0.0.1", 0),),
    routes=(Rule.of("192.0.2.0/24", "reject"),),
)


@attrs.frozen(eq=False)
class Served:
    """A proxy daemon, the address that it listens on, and its log."""

    daemon: ProxyDaemon
    address: ListenAddress
    log: list[dict[str, object]]

    async def connection_line(self) -> dict[str, object]:
        """Return the log's line about the only connection, when it has ended."""
        while self.daemon.traffic.status().open:
            await trio.testing.wait_all_tasks_blocked()
        [line] = [fields for fields in self.log if fields["event"] == "connection"]
        return line

    async def socks(self, host: str, port: int) -> tuple[trio.SocketStream, int]:
        """Return a connection after its SOCKS5 reply, and the code in that."""
        stream = await trio.open_tcp_stream(self.address.host, self.address.port)
        octets = bytes(map(int, host.split(".")))
        await stream.send_all(b"\x05\x01\x00")
        assert await stream.receive_some(2) == b"\x05\x00"
        await stream.send_all(b"\x05\x01\x00\x01" + octets + port.to_bytes(2, "big"))
        reply = await stream.receive_some(10)
        return stream, reply[1]


@asynccontextmanager
async def serve(profile: Profile, load: Load | None = None) -> AsyncGenerator[Served]:
    log: list[dict[str, object]] = []
    logger = make_logger(lambda line: log.append(json.loads(line)), LogSettings(log_format=LogFormat.JSON))
    daemon = ProxyDaemon(profile, Services(), logger, Metrics(), load=load)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        [address] = await nursery.start(daemon.serve, stop)
        yield Served(daemon, address, log)
        stop.set()


@asynccontextmanager
async def open_echo() -> AsyncGenerator[int]:
    async def echo(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(partial(trio.serve_listeners, echo, listeners))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_connection_is_carried_counted_and_logged() -> None:
    async with open_echo() as port, serve(PROFILE) as served:
        stream, code = await served.socks("127.0.0.1", port)
        async with stream:
            assert code == 0
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            traffic = served.daemon.traffic.status()
            assert (traffic.open, traffic.total) == (1, 1)
            await stream.send_eof()
            assert await stream.receive_some() == b""

        line = await served.connection_line()
        assert (line["target"], line["rule"], line["upstream"], line["outcome"]) == (
            f"127.0.0.1:{port}",
            "default",
            "direct",
            "ok",
        )
        assert (line["sent"], line["received"]) == (5, 5)
        body, _ = served.daemon.render_metrics("")
        assert b'sproxy_connections_total{outcome="ok",protocol="socks5",upstream="direct"} 1.0' in body


async def test_a_rejected_destination_says_so_everywhere() -> None:
    async with serve(PROFILE) as served:
        stream, code = await served.socks("192.0.2.1", 80)
        async with stream:
            assert code == 2, "connection not allowed by ruleset (RFC 1928, section 6)"
            assert await stream.receive_some() == b""

        line = await served.connection_line()
        assert (line["rule"], line["outcome"]) == ("routes[0]", "not-allowed")


async def test_status_shows_every_way_out() -> None:
    async with serve(PROFILE) as served:
        served.daemon.notify(LinksChanged("direct", 2))

        status = json.loads(json.dumps(served.daemon.status()))

        assert status["profile"] is None
        assert status["connections"] == {"open": 0, "total": 0, "sent": 0, "received": 0}
        assert [(name, way["state"], way["links"]) for name, way in status["upstreams"].items()] == [
            ("direct", "ready", 2)
        ]
        assert served.daemon.obstacles() == {}


async def test_its_file_is_known_when_the_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with serve(attrs.evolve(PROFILE, file=Path("dev.toml"))) as served:
        monkeypatch.setattr(os, "getcwd", gone)

        assert served.daemon.status()["profile"] == str(tmp_path / "dev.toml")


def gone() -> NoReturn:
    """Answer as getcwd(3) does in a folder that was removed."""
    raise FileNotFoundError


async def test_a_browser_gets_its_routes() -> None:
    async with serve(PROFILE) as served:
        page = served.daemon.pages()["GET", "/proxy.pac"]
        answer = await page(HttpRequest(method="GET", path="/proxy.pac"))

        assert answer.content_type == "application/x-ns-proxy-autoconfig"
        assert f"PROXY {served.address}".encode() in answer.body


async def test_before_it_listens_there_is_nothing_to_point_a_browser_at() -> None:
    daemon = ProxyDaemon(PROFILE, Services(), make_logger(lambda _: None, LogSettings()), Metrics())

    answer = await daemon.pages()["GET", "/proxy.pac"](HttpRequest(method="GET", path="/proxy.pac"))

    assert answer.status == 503


async def test_a_port_that_is_taken_is_told_before_any_upstream_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that runs would lose its session of kind awg to a second one with the same key."""

    def open_ways(_profile: Profile, _services: Services) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(proxy, "open_ways", open_ways)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        profile = attrs.evolve(PROFILE, listen=(ListenAddress(*other.getsockname()),))
        log: list[str] = []
        daemon = ProxyDaemon(profile, Services(), make_logger(log.append, LogSettings()), Metrics())
        with pytest.raises(ListenError, match="the port is in use"):
            await daemon.serve(trio.Event(), task_status=trio.TASK_STATUS_IGNORED)
    assert 'required=""' in log[0]


def loading(*profiles: Profile | Exception) -> Load:
    """Return what reads one of *profiles* after the other, each with a warning."""
    left = list(profiles)

    def load(warn: Callable[[str], None]) -> Profile:
        warn("hardly meant")
        match left.pop(0):
            case Exception() as problem:
                raise problem
            case profile:
                return profile

    return load


async def test_a_profile_is_exchanged_while_connections_go_on() -> None:
    new = attrs.evolve(
        PROFILE,
        listen=(ListenAddress("localhost", 0),),
        routes=(Rule.of("127.0.0.0/8", "reject"),),
        limits=Limits(drain=3),
        admin=Admin(listen=ListenAddress("127.0.0.1", 1)),
    )
    async with open_echo() as port, serve(PROFILE, loading(new)) as served:
        assert isinstance(served.daemon, Reloadable)
        stream, _ = await served.socks("127.0.0.1", port)
        async with stream:
            async with served.daemon.prepare() as change:
                assert change.changes.settings == ("admin", "limits.drain", "routes")
                assert (change.drain, str(change.admin)) == (3, "127.0.0.1:1")
                bound = change.commit()

            assert served.log[1] == served.log[1] | {"event": "profile", "message": "hardly meant"}
            assert bound != [served.address]
            assert served.daemon.traffic.listen == [str(address) for address in bound]
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError, match="all attempts"):
                await served.socks("127.0.0.1", port)
            other, code = await attrs.evolve(served, address=bound[0]).socks("127.0.0.1", port)
            assert code == 2, "the new route rejects it"
            await other.aclose()
            page = await served.daemon.pages()["GET", "/proxy.pac"](HttpRequest(method="GET", path="/"))
            assert f"PROXY {bound[0]}".encode() in page.body

            await stream.send_all(b"still here")
            assert await stream.receive_some() == b"still here"


@pytest.mark.parametrize(
    ("new", "kind", "says"),
    [
        (ProfileError(None, [Problem("routes", "are wrong")]), ProfileError, "routes: are wrong"),
        (
            attrs.evolve(
                PROFILE,
                listen=(ListenAddress("127.0.0.1", 0), ListenAddress("127.0.0.1", 0)),
                upstreams={"dev": SshUpstream(address=Target("127.0.0.1", 1), startup="required")},
                default="dev",
            ),
            UpstreamStartError,
            "upstream dev: 127.0.0.1:1: ",
        ),
    ],
)
async def test_what_cannot_be_served_changes_nothing(
    new: Profile | Exception, kind: type[Exception], says: str
) -> None:
    async with open_echo() as port, serve(PROFILE, loading(new)) as served:
        with pytest.raises(kind, match=says):
            async with served.daemon.prepare():
                raise AssertionError
        assert served.daemon.profile is PROFILE
        assert served.daemon.traffic.listen == [str(served.address)]
        stream, code = await served.socks("127.0.0.1", port)
        assert code == 0
        await stream.aclose()


async def test_a_change_that_is_not_made_gives_its_addresses_back() -> None:
    new = attrs.evolve(PROFILE, listen=(*PROFILE.listen, ListenAddress("127.0.0.1", 0)))
    async with serve(PROFILE, loading(new)) as served:
        async with served.daemon.prepare():
            pass
        assert served.daemon.traffic.listen == [str(served.address)]
        assert served.daemon.profile is PROFILE


async def test_two_addresses_of_one_port_want_a_restart() -> None:
    old = ListenAddress("127.0.0.1", await free_port())
    profile = attrs.evolve(PROFILE, listen=(old,))
    new = attrs.evolve(PROFILE, listen=(ListenAddress("127.0.0.2", old.port),))
    async with serve(profile, loading(new)) as served:
        with pytest.raises(ListenError, match=r"cannot listen on 127.0.0.2:.* while .* restart it"):
            async with served.daemon.prepare():
                raise AssertionError


async def free_port() -> int:
    """Return a port that nobody listens on, most likely."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        return listener.socket.getsockname()[1]


async def test_without_a_file_there_is_nothing_to_reload() -> None:
    async with serve(PROFILE) as served:
        with pytest.raises(ReloadError, match="runs without a profile"):
            async with served.daemon.prepare():
                raise AssertionError


async def test_one_that_starts_is_not_reloaded() -> None:
    logger = make_logger(lambda _: None, LogSettings())
    daemon = ProxyDaemon(PROFILE, Services(), logger, Metrics(), load=loading(PROFILE))
    with pytest.raises(ReloadError, match="starting"):
        async with daemon.prepare():
            raise AssertionError


def test_required_upstreams_stand_in_the_way_until_they_work() -> None:
    profile = attrs.evolve(
        PROFILE, upstreams={"dev": SshUpstream(address=Target("bastion", 22))}, default="dev"
    )
    daemon = ProxyDaemon(profile, Services(), make_logger(lambda _: None, LogSettings()), Metrics())

    assert daemon.obstacles() == {"upstream dev": "starting"}


@pytest.mark.parametrize(
    ("listen", "asked", "expected"),
    [
        ("127.0.0.1:1080", "proxy.lan:8000", "127.0.0.1:1080"),
        ("0.0.0.0:1080", "proxy.lan:8000", "proxy.lan:1080"),
        ("0.0.0.0:1080", "proxy.lan", "proxy.lan:1080"),
        ("[::]:1080", "[2001:db8::1]:8000", "[2001:db8::1]:1080"),
        ("[::]:1080", '"; alert(1); "', "localhost:1080"),
        ("0.0.0.0:1080", "", "localhost:1080"),
    ],
)
def test_a_wildcard_becomes_the_host_that_was_asked(listen: str, asked: str, expected: str) -> None:
    assert reachable_address(listen, asked) == expected
