# SPDX-License-Identifier: Apache-2.0
"""The store on a real SQLite file."""

from __future__ import annotations

import contextlib
import gc
import json
import sqlite3
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from fedmote.errors import StoreError
from fedmote.model.layout import Layout, Tensor
from fedmote.store.schema import MIGRATIONS
from fedmote.store.store import Store

LAYOUT = Layout((Tensor("w", (8,)),))


def test_commits_survive(tmp_path: Path) -> None:
    """A committed model is there after the file is opened again; old models are deleted."""
    path = tmp_path / "s.sqlite"
    store = Store(path, LAYOUT, np.zeros(8, np.float32), keep=3)
    for number in range(1, 6):
        assert store.commit(number, np.full(8, number, np.float32), {"round": number}) == number + 1
    store.close()
    store = Store(path, LAYOUT, np.zeros(8, np.float32), keep=3)
    version, number, model = store.models.latest()
    assert (version, number) == (6, 5) and np.array_equal(model, np.full(8, 5, np.float32))
    assert store.version_of(4) == 5 and store.version_of(6) is None
    assert [r["round"] for r in store.rounds.records()] == [1, 2, 3, 4, 5]
    store.close()


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    """If a round is committed twice, the second commit fails as a whole."""
    store = Store(tmp_path / "s.sqlite", LAYOUT, np.zeros(8, np.float32))
    store.commit(1, np.ones(8, np.float32), {})
    with pytest.raises(Exception, match="UNIQUE"):
        store.commit(1, np.full(8, 9, np.float32), {})
    assert store.models.latest()[0] == 2
    store.commit(2, np.ones(8, np.float32), {})
    store.close()


OLD = """
CREATE TABLE model (version INTEGER PRIMARY KEY, round INTEGER NOT NULL UNIQUE, crc32 INTEGER NOT NULL,
                    elements BLOB NOT NULL);
CREATE TABLE round (number INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE federation (layout_crc32 INTEGER NOT NULL);
PRAGMA user_version = 1;
"""


@pytest.mark.parametrize(
    ("state", "begun"),
    [
        ("", False),  # the process died right after it made the tables
        ("row", False),
        ("row begun", True),
        ("row round", True),  # from before requests to devices were stored
        ("row begun round", True),
    ],
)
def test_a_database_of_the_first_release_is_brought_up_to_date(tmp_path: Path, state: str, begun: bool) -> None:
    """A database of the first release is migrated. Its data stays, and a started round is still known later."""
    path = tmp_path / "s.sqlite"
    models = [np.full(8, n, np.float32).tobytes() for n in (0, 1)]
    old = sqlite3.connect(path, isolation_level=None)
    old.executescript(f"PRAGMA journal_mode = WAL; {OLD}")
    if "row" in state:
        old.execute("INSERT INTO federation VALUES (?)", (LAYOUT.crc32,))
        old.execute("INSERT INTO model VALUES (1, 0, ?, ?)", (zlib.crc32(models[0]), models[0]))
    if "begun" in state:
        old.execute("CREATE TABLE begun (once INTEGER PRIMARY KEY CHECK (once = 1))")
    if "round" in state:
        old.execute("INSERT INTO model VALUES (2, 1, ?, ?)", (zlib.crc32(models[1]), models[1]))
        old.execute("INSERT INTO round VALUES (1, ?)", (json.dumps({"round": 1}),))
    old.close()
    for _ in range(2):
        store = Store(path, LAYOUT, np.zeros(8, np.float32))
        version, number, model = store.models.latest()
        assert store.rounds.begun is begun and version == number + 1
        assert model.tobytes() == models[number]
        assert store.rounds.records() == [{"round": n} for n in range(1, number + 1)]
        store.close()


def test_a_migration_happens_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails half-way leaves the old format unchanged; a later, successful one starts from that."""
    path = tmp_path / "s.sqlite"
    Store(path, LAYOUT, np.zeros(8, np.float32)).close()
    format = len(MIGRATIONS)
    extra = "CREATE TABLE extra (number INTEGER)"
    monkeypatch.setattr("fedmote.store.schema.MIGRATIONS", (*MIGRATIONS, (extra, "INSERT INTO nowhere VALUES (1)")))
    with pytest.raises(StoreError, match="nowhere"):
        Store(path, LAYOUT, np.zeros(8, np.float32))
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (format,)
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'extra'").fetchall()
    monkeypatch.setattr("fedmote.store.schema.MIGRATIONS", (*MIGRATIONS, (extra,)))
    Store(path, LAYOUT, np.zeros(8, np.float32)).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (format + 1,)
        assert db.execute("SELECT count(*) FROM extra").fetchone() == (0,)


def test_a_store_that_nobody_closed_may_end_on_any_thread() -> None:
    """If an open store is garbage-collected on any thread, SQLite raises no warning (pytest makes it an error)."""
    stores: list[Store] = []
    thread = threading.Thread(target=lambda: stores.append(Store(":memory:", LAYOUT, np.zeros(8, np.float32))))
    thread.start()
    thread.join()
    assert len(stores) == 1
    stores.clear()
    gc.collect()


def test_damage_is_told(tmp_path: Path) -> None:
    """Damage is reported: no database, another layout, a newer format, a flipped byte."""
    path = tmp_path / "s.sqlite"
    path.write_bytes(b"this is no database, but long enough to be looked at" * 40)
    with pytest.raises(StoreError, match="not a database"):
        Store(path, LAYOUT, np.zeros(8, np.float32))
    path.unlink()
    store = Store(path, LAYOUT, np.zeros(8, np.float32))
    with pytest.raises(StoreError, match="another layout"):
        Store(path, Layout((Tensor("v", (8,)),)), np.zeros(8, np.float32))
    store._database._connection.execute("UPDATE model SET elements = CAST(zeroblob(31) || x'01' AS BLOB)")
    with pytest.raises(StoreError, match="checksum"):
        store.models.latest()
    store._database._connection.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreError, match="newer"):
        Store(path, LAYOUT, np.zeros(8, np.float32))
