"""Logs that are intact, and what is found in all the others."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tunnel_relay.protocol.audit_chain import (
    MAX_DETAILS,
    MAX_TEXT,
    Action,
    AuditEntry,
    Damage,
    Damaged,
    Head,
    Intact,
    Result,
    append,
    head_after,
    read_head,
    verify,
)

NOW = 1_800_000_000.5


def entry(text: str = "", **details: str | float | bool | None) -> AuditEntry:
    """Return one of alice's."""
    return AuditEntry(
        time=NOW,
        action=Action.OPEN,
        result=Result.SUCCESS,
        user="alice",
        address="192.0.2.1",
        correlation_id="c-1",
        resource=text,
        details=details,
    )


def chain(*entries: AuditEntry, after: Head | None = None) -> list[bytes]:
    """Return the lines that say *entries*."""
    lines: list[bytes] = []
    head = after or Head()
    for each in entries:
        line, head = append(each, head)
        lines.append(line)
    return lines


def resealed(line: bytes, old: bytes, new: bytes) -> bytes:
    """Return what somebody makes of *line* who knows how lines are sealed."""
    body = line.rstrip()[:-77].replace(old, new) + b"}"
    return b'%s,"sha256":"%s"}\n' % (body[:-1], hashlib.sha256(body).hexdigest().encode())


def head_of(lines: list[bytes]) -> Head:
    """Return the head of an intact log."""
    found = verify(lines)
    assert isinstance(found, Intact)
    return found.head


def damaged(lines: list[bytes], noted: Head | None = None) -> tuple[int, Damage, str]:
    """Return the line, what is wrong with it, and what people are told."""
    found = verify(lines, noted=noted)
    assert isinstance(found, Damaged)
    assert found.head.number < found.line
    return found.line, found.damage, found.detail


LOG = chain(*(entry(f"host-{number}:22") for number in range(1, 8)))


def test_a_log_goes_on_after_its_last_line() -> None:
    assert head_after(LOG[-1]) == head_after(LOG[-1].rstrip()) == head_of(LOG)
    assert head_after(LOG[-1][:-2]) is None
    assert head_after(b"something else\n") is None


def test_a_line_says_what_happened_and_what_it_follows() -> None:
    first, second = chain(entry("nas:22", stream=7), entry())
    assert json.loads(first) == {
        "number": 1,
        "previous": "0" * 64,
        "timestamp": "2027-01-15T08:00:00.500Z",
        "correlationId": "c-1",
        "userId": "alice",
        "ipAddress": "192.0.2.1",
        "userAgent": "",
        "action": "open",
        "resource": "nas:22",
        "result": "success",
        "details": {"stream": 7},
        "sha256": hashlib.sha256(first[:-78] + b"}").hexdigest(),
    }
    assert json.loads(second)["previous"] == hashlib.sha256(first.rstrip(b"\n")).hexdigest()


def test_a_log_that_nobody_touched_is_intact_with_or_without_newlines() -> None:
    assert verify([]) == Intact(Head())
    head = head_of(LOG)
    assert head == Head(7, hashlib.sha256(LOG[-1].rstrip(b"\n")).hexdigest())
    assert verify(line.rstrip(b"\n") for line in LOG) == Intact(head)
    assert verify(LOG, noted=head) == Intact(head)
    assert verify(LOG, noted=head_of(LOG[:3])) == Intact(head)
    assert verify(LOG, noted=Head()) == Intact(head)


def test_a_log_goes_on_in_the_next_file() -> None:
    head = head_of(LOG[:4])
    assert verify(LOG[4:], after=head) == Intact(head_of(LOG))
    found = verify(LOG[5:], after=head)
    assert isinstance(found, Damaged)
    assert (found.line, found.damage) == (1, Damage.MISSING)
    found = verify(LOG[4:], after=Head(4, "1" * 64))
    assert isinstance(found, Damaged)
    assert (found.line, found.damage, found.head) == (1, Damage.ALTERED, Head(4, "1" * 64))
    assert "before this log" in found.detail


def test_what_was_altered_is_found() -> None:
    lines = [*LOG]
    lines[2] = lines[2].replace(b"host-3", b"host-8")
    assert damaged(lines) == (3, Damage.ALTERED, "line 3 was altered")


def test_what_was_altered_and_sealed_again_is_found_by_what_follows() -> None:
    lines = [*LOG]
    lines[2] = resealed(lines[2], b"host-3", b"host-8")
    assert damaged(lines) == (
        3,
        Damage.ALTERED,
        "line 3 was altered: it is not the one that line 4 follows",
    )


def test_a_first_line_that_follows_something_was_altered() -> None:
    lines = [resealed(LOG[0], b"0" * 64, b"1" * 64), *LOG[1:]]
    assert damaged(lines)[:2] == (1, Damage.ALTERED)


def test_what_is_missing_is_named() -> None:
    assert damaged(LOG[:2] + LOG[5:]) == (
        3,
        Damage.MISSING,
        "before line 3, entries 3 to 5 are missing",
    )
    assert damaged(LOG[1:]) == (1, Damage.MISSING, "before line 1, entry 1 is missing")


def test_what_was_swapped_is_named() -> None:
    lines = [*LOG]
    lines[1], lines[4] = lines[4], lines[1]
    assert damaged(lines) == (2, Damage.MOVED, "line 2 has entry 5, and entry 2 is in line 5")


def test_what_comes_twice_is_named() -> None:
    assert damaged([*LOG[:3], LOG[1], *LOG[3:]]) == (
        4,
        Damage.REPEATED,
        "line 4 has number 2 again, where 4 belongs",
    )


@pytest.mark.parametrize("length", [0, 1, 20, 150, -2, -40])
def test_what_was_cut_short_is_named(length: int) -> None:
    lines = [*LOG]
    lines[3] = lines[3][:length] + b"\n" if length >= 0 else lines[3][: length - 1]
    assert damaged(lines) == (4, Damage.TRUNCATED, "line 4 was cut short")


def test_a_line_that_was_cut_short_after_its_details_does_not_pass_for_a_whole_one() -> None:
    (line,) = chain(entry(a="b"))
    assert damaged([line[: line.index(b',"sha256"')]])[:2] == (1, Damage.TRUNCATED)


@pytest.mark.parametrize("line", [b"hello\n", b"{}\n", b"\xff\xfe\n", b'{"previous":1}'])
def test_what_was_never_a_line_of_ours_was_put_there(line: bytes) -> None:
    assert damaged([*LOG[:3], line, *LOG[3:]])[:2] == (4, Damage.ALTERED)


def test_a_log_that_was_cut_off_shows_against_a_noted_head() -> None:
    assert isinstance(verify(LOG[:5]), Intact)
    assert damaged(LOG[:5], head_of(LOG)) == (
        6,
        Damage.TRUNCATED,
        "the log ends with entry 5: entries 6 to 7 are cut off",
    )
    assert damaged(LOG[:6], head_of(LOG))[2].endswith("entry 7 is cut off")
    assert damaged([], head_of(LOG))[:2] == (1, Damage.TRUNCATED)


def test_a_log_that_was_written_anew_shows_against_a_noted_head() -> None:
    anew = LOG[:2] + chain(*(entry("elsewhere:22") for _ in range(5)), after=head_of(LOG[:2]))
    assert isinstance(verify(anew), Intact)
    line, damage, detail = damaged(anew, head_of(LOG[:5]))
    assert (line, damage) == (5, Damage.ALTERED)
    assert "that was noted" in detail


def test_a_head_is_noted_as_text() -> None:
    head = head_of(LOG)
    assert read_head(f" {head}\n") == head
    for text in ("", "7", "7:", f"x:{'0' * 64}", f"7:{'0' * 63}", f"7:{'G' * 64}", f"-1:{'0' * 64}"):
        with pytest.raises(ValueError, match="NUMBER:SHA256"):
            read_head(text)


def test_texts_of_others_are_cut_and_stay_on_their_line() -> None:
    details = {str(number): "x" * 5000 for number in range(100)}
    hostile = entry("\n\r\u2028\x85\ud800" + '","sha256":"' * 1000, **details)
    lines = chain(hostile, entry())
    assert lines[0].count(b"\n") == 1
    assert lines[0].isascii()
    assert len(lines[0]) < 60_000
    values = json.loads(lines[0])
    assert len(values["resource"]) == MAX_TEXT
    assert len(values["details"]) == MAX_DETAILS
    assert isinstance(verify(lines), Intact)


ENTRIES = st.builds(
    AuditEntry,
    time=st.floats(0, 4e9),
    action=st.sampled_from(list(Action)),
    result=st.sampled_from(list(Result)),
    user=st.text(max_size=20),
    resource=st.text(max_size=20),
    details=st.dictionaries(
        st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5), max_size=3
    ),
)
LOGS = st.lists(ENTRIES, min_size=1, max_size=8).map(lambda entries: chain(*entries))


@given(LOGS)
def test_any_entries_make_an_intact_log_however_it_is_split(lines: list[bytes]) -> None:
    head = head_of(b"".join(lines).splitlines(keepends=True))
    assert head.number == len(lines)
    for count in range(len(lines)):
        assert verify(lines[count:], after=head_of(lines[:count])) == Intact(head)


@given(LOGS, st.data())
def test_a_single_byte_is_found_wherever_it_is(lines: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[index])
    place, value = data.draw(st.integers(0, len(line) - 2)), data.draw(st.integers(0, 255))
    assume(line[place] != value)
    line[place] = value
    lines[index] = bytes(line)
    assert damaged(lines)[0] == index + 1


@given(LOGS, st.data())
def test_a_cut_is_found_wherever_it_is(lines: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(lines) - 1))
    length = data.draw(st.integers(0, len(lines[index]) - 2))
    lines[index] = lines[index][:length]
    assert damaged(lines)[:2] == (index + 1, Damage.TRUNCATED)


@given(LOGS, st.data())
def test_lines_that_are_taken_out_swapped_or_put_in_are_found(
    lines: list[bytes], data: st.DataObject
) -> None:
    assume(len(lines) > 1)
    first = data.draw(st.integers(0, len(lines) - 2))
    second = data.draw(st.integers(first + 1, len(lines) - 1))
    noted = head_of(lines)
    assert damaged(lines[:first] + lines[second:])[:2] == (first + 1, Damage.MISSING)
    assert damaged(lines[:first], noted)[:2] == (first + 1, Damage.TRUNCATED)
    swapped = [*lines]
    swapped[first], swapped[second] = swapped[second], swapped[first]
    assert damaged(swapped)[:2] == (first + 1, Damage.MOVED)
    repeated = [*lines[:second], lines[first], *lines[second:]]
    assert damaged(repeated)[:2] == (second + 1, Damage.REPEATED)


@given(LOGS, st.data())
def test_a_line_that_is_forged_with_its_seal_is_found(lines: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(lines) - 1))
    noted = head_of(lines)
    lines[index] = resealed(lines[index], b'"timestamp":"', b'"timestamp":"9')
    if index < len(lines) - 1:
        assert damaged(lines)[:2] == (index + 1, Damage.ALTERED)
    assert damaged(lines, noted)[:2] == (index + 1, Damage.ALTERED)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_is_in_the_file_it_is_answered(lines: list[bytes]) -> None:
    assert isinstance(verify(lines), Intact) == (not lines)
