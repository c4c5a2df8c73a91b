from __future__ import annotations

import uuid

import pytest

from session_proxy.lab.damage import Damage, message_type
from session_proxy.lab.faults import Faults
from session_proxy.protocol.ssm_frames import Frame, MalformedFrameError, MessageType, PayloadType


def frame(number: int, kind: str = "output_stream_data", payload_type: int = PayloadType.OUTPUT) -> bytes:
    return Frame(
        message_type=kind,
        message_id=uuid.UUID(int=number),
        created_date=1,
        sequence_number=number,
        payload_type=payload_type,
        payload=b"data",
    ).encode()


def passed(faults: Faults, count: int, *, output: bool = True, kind: str = "output_stream_data") -> list[int]:
    damage = Damage(faults, output=output)
    messages = [message for n in range(1, count + 1) for message in damage.pass_on(frame(n, kind))]
    return [Frame.decode(message).sequence_number for message in messages]


def test_without_faults_all_pass() -> None:
    assert passed(Faults(), 4) == [1, 2, 3, 4]
    assert message_type(frame(1)) == "output_stream_data"


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (Faults(drop_output=2), [1, 3, 5]),
        (Faults(drop_input=1), [1, 2, 3, 4, 5, 6]),
        (Faults(duplicate_output=3), [1, 2, 3, 3, 4, 5, 6, 6]),
        (Faults(reorder_output=2), [1, 3, 2, 5, 4]),
        (Faults(drop_output=2, reorder_output=2), [1, 3, 5]),
    ],
)
def test_every_nth_frame_to_the_client_suffers(faults: Faults, expected: list[int]) -> None:
    assert passed(faults, 6) == expected


def test_input_has_switches_of_its_own() -> None:
    faults = Faults(drop_input=3, duplicate_input=2, reorder_input=4, drop_output=1)

    assert passed(faults, 6, output=False, kind="input_stream_data") == [1, 2, 2, 4, 5, 4]


def test_handshake_frames_keep_their_order() -> None:
    damage = Damage(Faults(reorder_output=1), output=True)
    complete = frame(1, payload_type=PayloadType.HANDSHAKE_COMPLETE)

    assert damage.pass_on(complete) == [complete]


def test_acknowledgements_are_counted_apart() -> None:
    acks = [frame(n, "acknowledge", PayloadType.NONE) for n in range(1, 5)]
    to_client = Damage(Faults(drop_acks_to_client=2, drop_output=1), output=True)
    to_agent = Damage(Faults(drop_acks_to_agent=4), output=False)

    assert [message for ack in acks for message in to_client.pass_on(ack)] == [acks[0], acks[2]]
    assert [message for ack in acks for message in to_agent.pass_on(ack)] == acks[:3]


@pytest.mark.parametrize("faults", [Faults(wrong_digest=1), Faults(wrong_header=1)])
def test_a_spoilt_copy_comes_first_and_is_no_frame(faults: Faults) -> None:
    spoilt, good = Damage(faults, output=True).pass_on(frame(1))

    assert good == frame(1)
    with pytest.raises(MalformedFrameError):
        Frame.decode(spoilt)


def test_other_messages_are_left_alone() -> None:
    state = frame(0, MessageType.AGENT_SESSION_STATE, PayloadType.NONE)

    assert Damage(Faults(drop_output=1), output=True).pass_on(state) == [state]
