"""One of every event of a session, and its line in a debug log."""

from __future__ import annotations

from awg_obfs.events import (
    CookieReceived,
    CookieSent,
    DatagramRejected,
    HandshakeAnswered,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeFault,
    HandshakeSent,
    LookUpFailed,
    NetworkChange,
    NetworkChanged,
    PathTooNarrow,
    PeerMoved,
    Rebound,
    Reconnecting,
    Rejection,
    SendingFailed,
    SessionDown,
    SessionEvent,
    SessionExpired,
    SessionUp,
    UnderLoad,
)
from awg_obfs.protocol.device import Device, DeviceSettings
from awg_obfs.protocol.noise import PrivateKey, Role
from awg_obfs.protocol.parameters import DEFAULT
from tests.support.awg import RecordedRandomness
from tests.support.awg_files import CLIENT_KEY, SERVER_KEY

HERE, THERE = ("192.0.2.1", 443), ("2001:db8::1", 4443)

DEVICE = Device(
    PrivateKey(SERVER_KEY), DEFAULT, DeviceSettings(), RecordedRandomness(seed="x"), lambda: 0, 0.0
)
PEER = DEVICE.add_peer(PrivateKey(CLIENT_KEY).public, name="laptop")

SESSION_EVENTS: list[tuple[SessionEvent, str]] = [
    (HandshakeSent(PEER, 2, HERE), "debug awg handshake sent link=laptop to=192.0.2.1:443 attempt=2"),
    (HandshakeAnswered(PEER, HERE), "debug awg handshake answered link=laptop to=192.0.2.1:443"),
    (
        HandshakeCompleted(PEER, Role.RESPONDER, THERE),
        "debug awg handshake completed link=laptop with=[2001:db8::1]:4443 role=responder",
    ),
    (
        HandshakeFailed(PEER, HandshakeFault.NO_ANSWER),
        'info awg handshake failed link=laptop reason="no answer"',
    ),
    (
        PeerMoved(PEER, HERE, THERE),
        "info awg peer moved link=laptop from=192.0.2.1:443 to=[2001:db8::1]:4443",
    ),
    (PeerMoved(PEER, None, HERE), "info awg peer moved link=laptop to=192.0.2.1:443"),
    (SessionExpired(PEER), "debug awg keys forgotten link=laptop"),
    (UnderLoad(), "warning awg under load"),
    (CookieSent(HERE), "debug awg cookie sent to=192.0.2.1:443"),
    (CookieReceived(PEER), "debug awg cookie received link=laptop"),
    (
        DatagramRejected(HERE, 148, Rejection.BAD_MAC1, "the public key differs"),
        (
            'debug awg datagram rejected source=192.0.2.1:443 size=148 reason="bad mac1" '
            'hint="the public key differs"'
        ),
    ),
    (
        DatagramRejected(HERE, 3, Rejection.TOO_SMALL),
        'debug awg datagram rejected source=192.0.2.1:443 size=3 reason="too small"',
    ),
    (SendingFailed(HERE, "EPERM"), "warning awg sending failed to=192.0.2.1:443 reason=EPERM"),
    (PathTooNarrow(HERE, 1472), "warning awg path too narrow to=192.0.2.1:443 size=1472"),
    (Rebound(HERE, THERE), "debug awg rebound from=192.0.2.1:443 to=[2001:db8::1]:4443"),
    (
        NetworkChanged(PEER, NetworkChange.MOVED),
        'info awg network changed link=laptop change="another address"',
    ),
    (SessionUp(PEER, HERE, 0.12345), "info awg session up link=laptop with=192.0.2.1:443 setup=0.123"),
    (SessionDown(PEER, "idle"), "info awg session down link=laptop reason=idle"),
    (Reconnecting(PEER, "silence"), "info awg reconnecting link=laptop reason=silence"),
    (LookUpFailed(PEER, "no address"), 'warning awg look-up failed link=laptop reason="no address"'),
]
