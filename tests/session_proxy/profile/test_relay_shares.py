"""What each worker of a server is to run."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from session_proxy.profile.model import Admin, ListenAddress
from session_proxy.profile.relay_loading import load_relay_server
from session_proxy.profile.relay_model import MIB, RelayAudit, RelayCluster, RelayServer
from session_proxy.profile.relay_shares import audit_file, cluster_of, share_of, worker_name
from session_proxy.target import Target
from tests.support.relay_files import RelayText, write_file

CLUSTER = RelayCluster(
    listen=ListenAddress("10.0.0.5", 3003),
    address=Target("relay-1.internal", 4003),
    certificate=Path("cert.pem"),
    key=Path("key.pem"),
    ca=Path("ca.pem"),
)


@pytest.fixture
def server(tmp_path: Path) -> RelayServer:
    loaded = load_relay_server(write_file(tmp_path, RelayText()), environ={})
    return attrs.evolve(
        loaded,
        workers=3,
        admin=Admin(listen=ListenAddress("127.0.0.1", 3002)),
        audit=RelayAudit(file=Path("/var/log/audit.jsonl")),
        cluster=CLUSTER,
    )


def test_bounds_are_divided_and_files_and_ports_are_its_own(server: RelayServer) -> None:
    share = share_of(server, 2)
    assert (share.limits.connections, share.limits.memory) == (3334, 512 * MIB // 3)
    assert share.audit == RelayAudit(file=Path("/var/log/audit.worker-2.jsonl"))
    assert share.cluster == attrs.evolve(
        CLUSTER, listen=ListenAddress("10.0.0.5", 3004), address=Target("relay-1.internal", 4004)
    )
    assert (share.name, share.admin) == ("file.worker-2", None)


def test_all_else_is_as_the_file_says(server: RelayServer) -> None:
    own = {"name", "admin", "audit", "cluster", "limits"}
    share = share_of(server, 1)
    for field in attrs.fields(RelayServer):
        if field.name not in own:
            assert getattr(share, field.name) == getattr(server, field.name)
    assert attrs.evolve(share.limits, connections=10_000, memory=512 * MIB) == server.limits


def test_nobody_is_left_without_memory(server: RelayServer) -> None:
    few = attrs.evolve(server, limits=attrs.evolve(server.limits, connections=1, memory=MIB))
    assert (share_of(few, 1).limits.connections, share_of(few, 1).limits.memory) == (1, MIB)


def test_what_the_file_does_not_have_a_worker_has_not(server: RelayServer) -> None:
    share = share_of(attrs.evolve(server, audit=None, cluster=None), 1)
    assert (share.audit, share.cluster) == (None, None)


def test_names() -> None:
    assert worker_name("relay", 3) == "relay.worker-3"
    assert audit_file(Path("a/log"), 1) == Path("a/log.worker-1")


def test_any_free_port_stays_so_and_ports_end() -> None:
    free = cluster_of(attrs.evolve(CLUSTER, listen=ListenAddress("::1", 0), address=None), 2)
    assert (free.listen, free.address) == (ListenAddress("::1", 0), None)
    last = attrs.evolve(CLUSTER, listen=ListenAddress("::1", 65535))
    assert cluster_of(last, 1).listen.port == 65535
    with pytest.raises(ValueError, match="the ports from 65535 on are too few"):
        cluster_of(last, 2)
