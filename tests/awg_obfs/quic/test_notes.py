"""Notes about streams, however they are cut."""

from __future__ import annotations

import pytest

from awg_obfs.quic.notes import Kind, Note, NoteReader

NOTES = [Note(Kind.HOLD, 4), Note(Kind.ENDED, 1 << 40, 1 << 50), Note(Kind.GO_ON, 0)]


def test_a_note_is_seventeen_bytes() -> None:
    assert bytes(Note(Kind.ENDED, 4, 258)) == b"\x02" + b"\0" * 7 + b"\x04" + b"\0" * 6 + b"\x01\x02"


@pytest.mark.parametrize("size", [1, 2, 16, 17, 18, 100])
def test_notes_are_read_however_they_are_cut(size: int) -> None:
    wire = b"".join(map(bytes, NOTES))
    reader = NoteReader()
    read = [note for at in range(0, len(wire), size) for note in reader.feed(wire[at : at + size])]
    assert read == NOTES


def test_notes_of_a_kind_to_come_are_passed_over() -> None:
    assert NoteReader().feed(b"\x09" + bytes(16) + bytes(NOTES[0])) == [NOTES[0]]
