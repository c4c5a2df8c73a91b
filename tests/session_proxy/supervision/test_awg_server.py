"""The daemon of an awg server, on a real port: what it serves, tells, counts and remembers."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import attrs
import pytest
import trio

from awg_obfs.protocol.keys import key_to_text, public_key_of
from awg_obfs.protocol.parameters import DEFAULT, Parameters
from session_proxy.errors import ListenError, ProfileError, RefusedError, TransportDownError
from session_proxy.events import ignore
from session_proxy.observability.log_settings import LogFormat, LogLevel, LogSettings
from session_proxy.observability.logging import make_logger
from session_proxy.observability.metrics import Metrics
from session_proxy.outbound.awg import AwgTransport, open_awg_transport
from session_proxy.outbound.transport import Services
from session_proxy.profile.awg_model import AwgLimits, AwgPeer, AwgPolicy, AwgServer
from session_proxy.profile.model import AwgUpstream, ListenAddress
from session_proxy.profile.secret import Secret
from session_proxy.supervision.awg_server import AwgServerDaemon, server_settings
from session_proxy.supervision.handshake_times import HandshakeTimes, StateError
from session_proxy.supervision.state_folder import find_problem
from session_proxy.target import Target
from tests.support.awg_files import CLIENT_KEY, SERVER_KEY
from tests.support.tunnels import eventually, open_destination, open_udp_echo

SECONDS = 20
SHARED = bytes(range(2, 34))
LOOKALIKE = Parameters(s1=20, s2=30)


def secret(key: bytes) -> Secret:
    return Secret("literal", "", key_to_text(key))


def config(state: Path, *, drain: float = 5.0) -> AwgServer:
    return AwgServer(
        listen=ListenAddress("127.0.0.1", 0),
        private_key=secret(SERVER_KEY),
        state=state,
        awg=LOOKALIKE,
        peers=(
            AwgPeer(
                name="laptop",
                public_key=secret(public_key_of(CLIENT_KEY)),
                preshared_key=secret(SHARED),
            ),
            AwgPeer(name="phone", public_key=secret(public_key_of(bytes(range(3, 35))))),
        ),
        policy=AwgPolicy(deny=()),
        limits=AwgLimits(drain=drain),
    )


@attrs.define(eq=False)
class Served:
    """A daemon, its address, its log, and how to stop it; *over* is set when it has returned."""

    daemon: AwgServerDaemon
    address: ListenAddress
    log: list[dict[str, object]]
    stop: trio.Event
    over: trio.Event = attrs.field(factory=trio.Event)

    def lines(self, event: str) -> list[dict[str, object]]:
        """Return the fields of the lines about *event*."""
        return [line for line in self.log if line["event"] == event]

    async def line(self, event: str) -> dict[str, object]:
        """Return the first line about *event*, when there is one."""
        await eventually(lambda: self.lines(event))
        return self.lines(event)[0]

    def metrics(self) -> list[str]:
        """Return the lines of the metrics."""
        return self.daemon.render_metrics("")[0].decode().splitlines()

    @asynccontextmanager
    async def client(self, **changes: object) -> AsyncGenerator[AwgTransport]:
        """Come in as the first peer, unless *changes* to its upstream keep it out."""
        upstream = AwgUpstream(
            endpoint=Target.of(self.address.host, self.address.port),
            private_key=secret(CLIENT_KEY),
            public_key=secret(public_key_of(SERVER_KEY)),
            preshared_key=secret(SHARED),
            awg=LOOKALIKE,
        )
        async with open_awg_transport(
            "edge", attrs.evolve(upstream, **changes), Services(notify=ignore)
        ) as transport:
            yield transport


@asynccontextmanager
async def serve(server: AwgServer) -> AsyncGenerator[Served]:
    log: list[dict[str, object]] = []
    settings = LogSettings(log_format=LogFormat.JSON, level=LogLevel.DEBUG)
    logger = make_logger(lambda line: log.append(json.loads(line)), settings)
    metrics = Metrics()
    daemon = AwgServerDaemon(server, logger, metrics)
    metrics.watch(
        dict, is_ready=lambda: True, dropped=lambda: 0, figures=daemon.figures, streams=daemon.streams
    )
    stop, over = trio.Event(), trio.Event()

    async def run(*, task_status: trio.TaskStatus[Sequence[ListenAddress]]) -> None:
        await daemon.serve(stop, task_status=task_status)
        over.set()

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(run)
            yield Served(daemon, address, log, stop, over)
            nursery.cancel_scope.cancel()


async def test_a_connection_is_carried_counted_and_logged(tmp_path: Path) -> None:
    async with open_destination() as port, serve(config(tmp_path)) as served, served.client() as transport:
        async with await transport.connect_tcp(Target.of("localhost", port)) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some(5)
            assert served.daemon.streams() == 1
            assert "sproxy_connections_open 1.0" in served.metrics()
            await stream.send_eof()
            assert not await stream.receive_some(1)
        line = await served.line("connection")
        assert (
            line.items()
            >= {
                "client": "laptop",
                "protocol": "awg",
                "target": f"localhost:{port}",
                "upstream": "direct",
                "sent": 5,
                "received": 5,
                "outcome": "ok",
            }.items()
        )
        assert line.keys() >= {"connect", "duration"}
        text = served.metrics()
        for wanted in (
            'sproxy_connections_total{outcome="ok",protocol="awg",upstream="direct"} 1.0',
            "sproxy_connections_open 0.0",
            'sproxy_awg_sessions{link="laptop"} 1.0',
            'sproxy_awg_sessions{link="phone"} 0.0',
            'sproxy_awg_handshakes_total{link="laptop",outcome="ok"} 1.0',
            'sproxy_awg_sessions_total{link="laptop"} 1.0',
        ):
            assert wanted in text
        assert any(
            each.startswith('sproxy_awg_latency_seconds{link="laptop",quantile="0.99"}') for each in text
        )


async def test_status_shows_every_peer_and_what_is_known_of_it_when_it_has_left(tmp_path: Path) -> None:
    async with serve(config(tmp_path)) as served:
        async with served.client():
            await served.line("awg session up")
            peers = cast("dict[str, dict[str, object]]", served.daemon.status()["peers"])
            assert peers["laptop"]["up"]
            assert str(peers["laptop"]["address"]).startswith("127.0.0.1:")
            assert (peers["phone"]["up"], peers["phone"]["address"], peers["phone"]["sent"]) == (False, "", 0)
            before = served.daemon.figures().sessions[0].sent
        await served.line("awg session down")
        after = served.daemon.figures().sessions[0]
        assert not after.up
        # A counter never goes back.
        assert after.sent >= before > 0


async def test_why_a_destination_was_not_reached_is_in_the_log(tmp_path: Path) -> None:
    async with serve(config(tmp_path)) as served, served.client() as transport:
        with pytest.raises(RefusedError):
            await transport.connect_tcp(Target.of("127.0.0.1", 1))
        line = await served.line("connection")
        assert (line["outcome"], line["detail"]) == ("refused", "connection refused")
        assert "connect" not in line


async def test_an_association_has_its_line(tmp_path: Path) -> None:
    async with open_udp_echo() as address, serve(config(tmp_path)) as served, served.client() as transport:
        association = await transport.open_udp()
        await association.send(Target.of(*address), b"ping")
        assert (await association.receive())[1] == b"ping"
        await association.aclose()
        line = await served.line("udp association")
        assert (line["client"], line["sent"], line["received"]) == ("laptop", 1, 1)
        assert "sproxy_udp_associations_total 1.0" in served.metrics()


async def test_who_is_kept_out_is_counted_and_the_log_says_what_differs(tmp_path: Path) -> None:
    async with serve(config(tmp_path)) as served:
        async with served.client(awg=attrs.evolve(LOOKALIKE, s1=25), startup="background"):
            line = await served.line("awg datagram rejected")
        assert "s1" in str(line["hint"])
        async with served.client(private_key=secret(bytes(range(9, 41))), startup="background"):
            await eventually(lambda: len(served.lines("awg datagram rejected")) > 1)
        assert served.lines("awg datagram rejected")[1]["reason"] == "unknown peer"
        assert 'sproxy_awg_auth_failures_total{reason="unknown-peer"} 1.0' in served.metrics()
        rejections = cast("dict[str, int]", served.daemon.status()["rejections"])
        assert rejections["unknown peer"] == 1


async def test_handshakes_are_remembered_over_a_restart(tmp_path: Path) -> None:
    async with serve(config(tmp_path)) as served, served.client():
        pass
    times = HandshakeTimes.open(tmp_path, public_key_of(SERVER_KEY))
    laptop, phone = server_settings(config(tmp_path), times).peers

    assert len(laptop.last_timestamp) == 12
    assert phone.last_timestamp == b""


async def test_the_start_is_summed_up_without_secrets(tmp_path: Path) -> None:
    async with serve(config(tmp_path)) as served, served.client():
        await served.line("awg session up")
    [line] = served.lines("starting")
    assert (line["peers"], line["padding"]) == ("laptop,phone", "20,30,0,0")
    text = json.dumps(served.log)
    for key in (SERVER_KEY, CLIENT_KEY, SHARED):
        assert key_to_text(key) not in text


async def test_it_stops_when_what_is_open_is_over(tmp_path: Path) -> None:
    async with open_destination() as port, serve(config(tmp_path)) as served, served.client() as transport:
        stream = await transport.connect_tcp(Target.of("127.0.0.1", port))
        served.stop.set()
        with pytest.raises(TransportDownError, match="stopping"):
            await transport.connect_tcp(Target.of("127.0.0.1", port))
        await stream.send_all(b"still here")
        assert await stream.receive_some(10)
        assert not served.over.is_set()
        await stream.aclose()
        await served.over.wait()


async def test_it_stops_when_time_is_up(tmp_path: Path) -> None:
    async with (
        open_destination() as port,
        serve(config(tmp_path, drain=0.1)) as served,
        served.client() as transport,
    ):
        stream = await transport.connect_tcp(Target.of("127.0.0.1", port))
        served.stop.set()
        await served.over.wait()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        (ListenAddress("203.0.113.1", 0), "this machine has no such address"),
        (ListenAddress("nowhere.invalid", 0), "the host has no address; write an IP address"),
    ],
)
async def test_an_address_that_is_not_ours_ends_the_start(
    tmp_path: Path, listen: ListenAddress, says: str
) -> None:
    with pytest.raises(ListenError, match=says):
        await _start(attrs.evolve(config(tmp_path), listen=listen))


async def test_a_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        listen = ListenAddress(*taken.getsockname())
        with pytest.raises(ListenError, match="uses this port"):
            await _start(attrs.evolve(config(tmp_path), listen=listen))


async def test_a_state_folder_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = tmp_path / "server.toml"
    with pytest.raises(ProfileError, match="name another one as state") as caught:
        await _start(attrs.evolve(config(tmp_path / "file"), file=file))
    # As `sproxy check` has it.
    assert str(caught.value) == f"{file}: {find_problem(tmp_path / 'file')}"
    assert str(caught.value).startswith(f"{file}: state: {tmp_path}/file is a file, not a folder; ")


async def test_a_state_file_that_is_damaged_ends_the_start(tmp_path: Path) -> None:
    HandshakeTimes.open(tmp_path, public_key_of(SERVER_KEY)).path.write_text("{")
    with pytest.raises(StateError, match="is damaged"):
        await _start(config(tmp_path))


async def test_the_address_may_be_a_name(tmp_path: Path) -> None:
    async with serve(attrs.evolve(config(tmp_path), listen=ListenAddress("localhost", 0))) as served:
        assert served.address.host in ("127.0.0.1", "::1")


async def test_a_name_that_leads_to_where_quic_has_no_room_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(*_args: object, **_options: object) -> object:
        return [(socket.AF_INET6, socket.SOCK_DGRAM, 0, "", ("::1", 0, 0, 0))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", found)
    server = attrs.evolve(
        config(tmp_path), listen=ListenAddress("vpn.example", 0), mtu=1280, awg=attrs.evolve(DEFAULT, s4=20)
    )
    with pytest.raises(ListenError, match=r"vpn\.example:0: over IPv6, .* lower s4, or raise mtu"):
        await _start(server)


async def _start(server: AwgServer) -> None:
    daemon = AwgServerDaemon(server, make_logger(lambda _line: None, LogSettings()), Metrics())
    with trio.fail_after(SECONDS):
        await daemon.serve(trio.Event(), task_status=trio.TASK_STATUS_IGNORED)


async def test_two_clients_with_one_key_are_told_of_once(tmp_path: Path) -> None:
    async with serve(config(tmp_path)) as served, served.client():
        await served.line("awg session up")
        # Coming in for the first time is no move.
        assert not served.lines("awg peer moved")
        async with served.client(startup="background"):
            line = await served.line("awg peer in two places")
        assert (line["level"], line["link"]) == ("warning", "laptop")
        assert len(served.lines("awg peer in two places")) == 1
        assert len(served.lines("awg peer moved")) <= 3
        [moves] = [each for each in served.metrics() if each.startswith("sproxy_awg_moves_total{")]
        assert float(moves.split()[-1]) >= 3
