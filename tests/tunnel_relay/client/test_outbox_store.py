"""Requests in a file."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from tunnel_relay.client.outbox_store import Kept, OutboxStore, Sent, open_outbox_store
from tunnel_relay.errors import StoreError
from tunnel_relay.protocol.requests import MAX_REQUEST, Request


def request(name: str, payload: bytes = b"hello") -> Request:
    return Request(id=name, target="db", payload=payload, most=5, time=2.5)


async def test_what_waits_outlives_the_program(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with open_outbox_store(path) as store:
        for name in ("one", "two", "three"):
            await store.keep(request(name))
        await store.keep(request("longest", bytes(MAX_REQUEST)))
        await store.forget("two")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with open_outbox_store(path) as store:
        kept = [request("one"), request("three"), request("longest", bytes(MAX_REQUEST))]
        assert await store.restore() == [Kept(each) for each in kept]


async def test_one_that_is_kept_already_stays_as_it_is(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store:
        assert await store.keep(request("one")) is None
        await store.mark_sent("one", Sent(1000.0, "record"))
        assert await store.keep(request("one", b"another")) == Kept(request("one"), Sent(1000.0, "record"))
        assert await store.restore() == [Kept(request("one"), Sent(1000.0, "record"))]


async def test_what_was_certainly_not_done_may_be_sent_elsewhere(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store:
        await store.keep(request("one"))
        await store.mark_sent("one", Sent(1000.0, "record"))
        await store.mark_unsent("one")
        assert await store.restore() == [Kept(request("one"))]
        await store.mark_sent("one", Sent(1010.0, "another"))
        assert await store.restore() == [Kept(request("one"), Sent(1010.0, "another"))]


async def test_it_is_kept_when_each_was_first_sent(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    async with open_outbox_store(path) as store:
        for name in ("sent", "never-sent", "sent-later"):
            await store.keep(request(name))
        await store.mark_sent("sent", Sent(1000.0, "record"))
        await store.mark_sent("sent", Sent(1010.0, "record"))
        await store.mark_sent("sent-later", Sent(1010.0, "record"))
    async with open_outbox_store(path) as store:
        assert await store.restore() == [
            Kept(request("sent"), Sent(1000.0, "record")),
            Kept(request("never-sent")),
            Kept(request("sent-later"), Sent(1010.0, "record")),
        ]


async def fill_up(store: OutboxStore) -> None:
    """Let there be no more room than there is now."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    await store._database.read(work)


async def test_a_full_disk_is_told_to_whoever_sends_and_loses_nothing(tmp_path: Path) -> None:
    async with open_outbox_store(tmp_path / "outbox.db") as store:
        await store.keep(request("one"))
        await fill_up(store)
        with pytest.raises(StoreError, match=r"outbox\.db: database or disk is full"):
            await store.keep(request("long", bytes(100_000)))
        assert await store.restore() == [Kept(request("one"))]
        await store.forget("one")
        assert await store.restore() == []
