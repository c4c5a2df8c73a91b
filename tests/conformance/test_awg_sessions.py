"""Our device beside the reference's: how it tells datagrams apart, and whole recorded conversations."""

from __future__ import annotations

import pytest

from awg_obfs.protocol.classify import Classifier, Kind
from awg_obfs.protocol.messages import SHORTEST_MESSAGE
from awg_obfs.protocol.parameters import parameters_from_mapping
from tests.support.awg import Vector, vectors
from tests.support.awg_sessions import SIDES, Side

OUTCOMES = {
    Kind.TOO_SMALL: "dropped_too_small",
    Kind.UNKNOWN: "dropped_unknown",
    Kind.INITIATION: "handshake_queued",
    Kind.RESPONSE: "handshake_queued",
    Kind.COOKIE_REPLY: "cookie_queued",
}


@pytest.mark.parametrize("case", vectors("classify"))
def test_datagrams_are_told_apart_as_the_reference_does(case: Vector) -> None:
    datagram = bytes.fromhex(case["datagram_hex"])

    kind, padding = Classifier(parameters_from_mapping(case["config"])).classify(datagram)

    message_size = len(datagram) - padding
    long_enough = message_size >= SHORTEST_MESSAGE
    transport = "transport_lookup" if long_enough else "dropped_transport_too_small"
    assert (kind.value, padding) == (case["type"], case["offset"])
    assert message_size == case.get("message_size", len(datagram))
    assert OUTCOMES.get(kind, transport) == case["outcome"]


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("session", vectors("sessions"))
def test_each_side_of_a_session_does_what_the_reference_did(session: Vector, name: str) -> None:
    side = Side(session, name)

    side.run()

    consumed = sum(len(read) for read in side.random.reads) // 2
    assert consumed == session["consumed"][name] or not session["deterministic"]
    assert side.peer.tx_bytes == session[name]["tx_bytes"]
    assert side.peer.rx_bytes == session[name]["rx_bytes"]
