"""Our session layer beside amneziawg-go: a test, or more, for every section of awg.json.

Where we differ on purpose, the test says so.
"""

from __future__ import annotations

import pytest

from awg_obfs.errors import (
    HeaderFault,
    HeaderRangeError,
    ParametersError,
    TagChainError,
    TagFault,
    TagProblem,
)
from awg_obfs.protocol.classify import Classifier, Kind
from awg_obfs.protocol.headers import HeaderRange
from awg_obfs.protocol.junk import junk_packets
from awg_obfs.protocol.lint import checked_parameters
from awg_obfs.protocol.messages import SHORTEST_MESSAGE
from awg_obfs.protocol.parameters import parameters_from_mapping
from awg_obfs.protocol.randomness import PooledRandomness
from awg_obfs.protocol.sizes import zero_fill
from awg_obfs.protocol.tags import COUNTED, Tag, TagChain, TagKind
from awg_obfs.protocol.uapi import Configuration, Errno
from tests.support.awg import FILE, VECTORS, RecordedRandomness, Vector, randomness_of, vectors
from tests.support.awg_sessions import SIDES, Side

TESTED = {
    "meta", "tag_parse", "tag_generate", "tag_generate_with_data", "header_parse", "header_member", "header_generate",
    "content_padding", "classify", "uapi", "junk", "sessions",
}  # fmt: skip
OBSERVATIONS = {
    "real_udp": "sizes that one kernel delivered; what follows for parameters is in the lint",
    "real_pair": "how often a datagram got lost, over several runs",
    "process_crash": "what crashes the reference; the lint refuses it, see below",
}


def test_no_section_goes_unread() -> None:
    assert set(VECTORS) <= TESTED | set(OBSERVATIONS)


@pytest.mark.skipif("meta" not in VECTORS, reason=f"{FILE} has no section meta")
def test_the_random_stream_is_the_recorded_one() -> None:
    example: Vector = VECTORS["meta"]["random_stream"]["example"]

    assert RecordedRandomness(seed=example["seed"])(80).hex() == example["first_80_bytes_hex"]


# -- tags


def described(tag: Tag) -> dict[str, object]:
    """Return *tag* as the vectors describe it."""
    if tag.kind is TagKind.BYTES:
        return {"tag": "b", "hex": tag.literal.hex()}
    return {"tag": str(tag.kind), "n": tag.count} if tag.kind in COUNTED else {"tag": str(tag.kind)}


def coded(problem: TagProblem) -> str:
    """Return *problem* in the words of the vectors."""
    match problem.fault:
        case TagFault.UNCLOSED | TagFault.EMPTY:
            return problem.fault
        case TagFault.UNKNOWN:
            return f"{problem.fault}:{problem.key}"
        case _:
            return f"{problem.key}:{problem.fault}"


@pytest.mark.parametrize("vector", vectors("tag_parse"))
def test_chains_are_accepted_and_refused_as_there(vector: Vector) -> None:
    source: str | bytes = bytes.fromhex(vector["input_hex"]) if "input_hex" in vector else vector["input"]

    if vector["ok"]:
        chain = TagChain.parse(source, strict=True)
        assert [described(tag) for tag in chain.tags] == vector["tags"]
        assert chain.length == vector["total_len"]
    else:
        with pytest.raises(TagChainError) as caught:
            TagChain.parse(source, strict=True)
        assert [coded(problem) for problem in caught.value.problems] == vector["errors"]


def test_the_counter_is_our_extension_to_what_is_accepted_there() -> None:
    """The reference's README describes <c> and its code refuses it; we take it unless we are to be strict."""
    assert TagChain.parse("<c>").length == 4
    with pytest.raises(TagChainError):
        TagChain.parse("<c>", strict=True)


@pytest.mark.parametrize("vector", vectors("tag_generate"))
def test_chains_make_the_same_bytes_from_the_same_stream(vector: Vector) -> None:
    random = randomness_of(vector)
    chain = TagChain.parse(vector["input"], strict=True)

    if vector.get("panics"):
        with pytest.raises(ValueError, match="no packet has such a length"):
            chain.generate(random, lambda: vector["unix_time"])
        # It does not come to that: a file with such a chain is refused when it is read.
        with pytest.raises(TagChainError):
            TagChain.parse(vector["input"])
        return
    made = chain.generate(random, lambda: vector["unix_time"])

    assert made.hex() == vector["output_hex"]
    assert random.reads == [read["hex"] for read in vector["reads"]]
    assert len(made) == chain.length == vector["size"]


@pytest.mark.parametrize("vector", vectors("tag_generate_with_data"))
def test_chains_carry_data_as_there(vector: Vector) -> None:
    data = bytes.fromhex(vector["data_hex"])
    made = TagChain.parse(vector["input"], strict=True).generate(RecordedRandomness(), lambda: 0, data=data)

    assert made.hex() == vector["output_hex"]


# -- headers


@pytest.mark.parametrize("vector", vectors("header_parse"))
def test_header_ranges_are_accepted_and_refused_as_there(vector: Vector) -> None:
    if vector["ok"]:
        header = HeaderRange.parse(vector["input"])
        assert (header.start, header.end, str(header)) == (vector["start"], vector["end"], vector["printed"])
    else:
        with pytest.raises(HeaderRangeError) as caught:
            HeaderRange.parse(vector["input"])
        assert caught.value.fault is HeaderFault(vector["error"])


@pytest.mark.parametrize("vector", vectors("header_member"))
def test_header_ranges_contain_the_same_numbers(vector: Vector) -> None:
    value = int.from_bytes(bytes.fromhex(vector["wire_hex"]), "little")

    assert value == vector["value"]
    assert (value in HeaderRange.parse(vector["range"])) == vector["member"]


@pytest.mark.parametrize("vector", vectors("header_generate"))
def test_header_ranges_draw_the_same_numbers_from_the_same_stream(vector: Vector) -> None:
    header = HeaderRange.parse(vector["range"])
    expected: list[int] = vector.get("values") or [vector["value"]]
    random = randomness_of(vector)

    assert [header.generate(random) for _ in expected] == expected
    assert random.reads == vector["reads"]
    if "wire_hex" in vector:
        assert expected[0].to_bytes(4, "little").hex() == vector["wire_hex"]

    # Drawing many at once takes the same bytes, and so does drawing from a pool.
    together = randomness_of(vector)
    assert header.generate_many(len(expected), together) == expected
    assert "".join(together.reads) == "".join(vector["reads"])
    if "seed" in vector:
        assert (
            header.generate_many(len(expected), PooledRandomness(randomness_of(vector), block=5)) == expected
        )


# -- sizes and junk


@pytest.mark.parametrize("vector", vectors("content_padding"))
def test_plaintexts_are_filled_with_as_many_zeros(vector: Vector) -> None:
    assert zero_fill(vector["packet"], vector["mtu"]) == vector["zeros"]


@pytest.mark.parametrize("vector", vectors("junk"))
def test_junk_has_the_same_lengths_and_contents(vector: Vector) -> None:
    jc, jmin, jmax = vector["jc"], vector["jmin"], vector["jmax"]
    random = randomness_of(vector)
    # An ephemeral key and an index come before the junk.
    random(32 + 4)

    if vector.get("panics"):
        with pytest.raises(ValueError, match="no number below"):
            junk_packets(jc, jmin, jmax, random)
        with pytest.raises(ParametersError):
            checked_parameters({"jc": jc, "jmin": jmin, "jmax": jmax or 1})
        return
    packets = junk_packets(jc, jmin, jmax, random)

    assert [len(packet) for packet in packets] == vector["sizes"]
    contents = [packet for packet in packets if packet]
    assert len(contents) == len(vector["junk"])
    reads = iter(random.reads[1:])
    for content, expected in zip(contents, vector["junk"], strict=True):
        assert [next(reads) for _ in expected["size_reads"]] == expected["size_reads"]
        assert next(reads) == content.hex()
        if expected["content_hex"] is not None:
            assert content.hex() == expected["content_hex"]


# -- configuration


def operation_of(step: Vector) -> str:
    if step["set"] is not None:
        return step["set"]
    short: Vector = step["set_abbrev"]
    head, filler, tail = short["head"], short["filler"], short["tail"]
    return head + filler * (short["total_len"] - len(head) - len(tail)) + tail


def abbreviated(line: str) -> str:
    """Return a line of `get` as the vectors show it: long ones by their beginning and length."""
    return line if len(line) <= 1000 else f"{line[:20]}…({len(line)} bytes)"


@pytest.mark.parametrize("vector", vectors("uapi"))
def test_configurations_are_accepted_refused_and_half_applied_as_there(vector: Vector) -> None:
    configuration = Configuration()
    for step in vector["steps"]:
        assert configuration.set(operation_of(step)) == Errno(step["errno"])
        assert [abbreviated(line) for line in configuration.get()] == step["get"]


def table_of(operation: str) -> dict[str, str]:
    """Return the lines of an operation as a file's table would have them."""
    return dict(line.split("=", 1) for line in operation.split("\n") if line)


def refused_for_its_parameters(vector: Vector) -> bool:
    step: Vector = vector["steps"][0]
    # No file of ours has carriage returns in its values, and peers are elsewhere in it.
    others = "\r" in operation_of(step) or "public_key" in operation_of(step)
    return step["errno"] == Errno.INVALID and not others


@pytest.mark.parametrize("vector", vectors("uapi", refused_for_its_parameters))
def test_what_is_refused_there_is_refused_in_our_files_with_its_key(vector: Vector) -> None:
    values = table_of(operation_of(vector["steps"][0]))
    if "<c>" in str(values):
        assert parameters_from_mapping(values).i1 is not None
        return

    with pytest.raises(ParametersError) as caught:
        checked_parameters(values)
    for problem in caught.value.problems:
        assert problem.key in values
        assert problem.fix
        assert "\n" not in str(problem)


@pytest.mark.parametrize("vector", vectors("process_crash", lambda case: case["crashes"]))
def test_what_crashes_the_reference_is_refused_when_it_is_read(vector: Vector) -> None:
    operation, _, signatures = vector["set"].partition(" + i1..i")
    values = table_of(operation)
    values |= {f"i{number}": "<b 0x00>" for number in range(1, int(signatures or 0) + 1)}

    with pytest.raises(ParametersError):
        checked_parameters(values)


# -- the device


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

    assert side.consumed == session["consumed"][name] or not session["deterministic"]
    assert side.peer.tx_bytes == session[name]["tx_bytes"]
    assert side.peer.rx_bytes == session[name]["rx_bytes"]
