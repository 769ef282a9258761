# SPDX-License-Identifier: Apache-2.0
"""What survives the server: models and the log of rounds, in SQLite. Never a device's update."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmote.layout import Layout
from fedmote_device import kernels

_VERSION = 1
_TABLES = """
CREATE TABLE model (version INTEGER PRIMARY KEY, round INTEGER NOT NULL UNIQUE, crc32 INTEGER NOT NULL,
                    elements BLOB NOT NULL);
CREATE TABLE round (number INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE federation (layout_crc32 INTEGER NOT NULL);
"""
_BEGUN = "CREATE TABLE begun (once INTEGER PRIMARY KEY CHECK (once = 1))"  # there since devices were first asked


class StoreError(Exception):
    """The database cannot be used; the message says why and what to do."""


class Store:
    """One federation's database. Model 1 is where round 1 starts; round n commits model n + 1.

    path: of the database, or ":memory:". keep: models that stay; older ones are deleted.
    """

    def __init__(self, path: str | Path, layout: Layout, initial: NDArray[np.float32], keep: int = 10) -> None:
        self.keep = keep
        self.begun = False  # a round was begun in this database
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare(layout, initial)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{path}: {error}. Restore the file from a backup, or move it away to start the federation anew"
            ) from error

    def _prepare(self, layout: Layout, initial: NDArray[np.float32]) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise StoreError(f"the database is of a newer fedmote (format {version}); this one reads up to {_VERSION}")
        if version == 0:
            self._db.executescript(f"BEGIN;{_TABLES}PRAGMA user_version = {_VERSION};COMMIT;")
        row = self._db.execute("SELECT layout_crc32 FROM federation").fetchone()
        if row is None:
            self._db.execute("BEGIN")
            self._db.execute("INSERT INTO federation VALUES (?)", (layout.crc32,))
            self._insert(1, 0, initial)
            self._db.execute("COMMIT")
        elif row[0] != layout.crc32:
            raise StoreError("the database holds a model of another layout; name another data directory or tensors")
        found = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'begun'").fetchone()
        self.begun = found is not None or self._db.execute("SELECT 1 FROM round").fetchone() is not None

    def _insert(self, version: int, number: int, model: NDArray[np.float32]) -> None:
        data = np.ascontiguousarray(model, "<f4").tobytes()
        self._db.execute("INSERT INTO model VALUES (?, ?, ?, ?)", (version, number, kernels.crc32(data), data))

    def latest(self) -> tuple[int, int, NDArray[np.float32]]:
        """Return (version, round that made it, model). StoreError when it does not match its checksum."""
        row = self._db.execute("SELECT version, round, crc32, elements FROM model ORDER BY version DESC").fetchone()
        if kernels.crc32(row[3]) != row[2]:
            raise StoreError(f"model {row[0]} does not match its checksum: the database is damaged; restore a backup")
        return row[0], row[1], np.frombuffer(row[3], "<f4").astype(np.float32)

    def commit(self, number: int, model: NDArray[np.float32], record: dict[str, Any]) -> int:
        """Make a round's model durable; return its version. After this returns, a crash does not lose it."""
        version = self.latest()[0] + 1
        self._db.execute("BEGIN")
        try:
            self._insert(version, number, model)
            self._db.execute("INSERT INTO round VALUES (?, ?)", (number, json.dumps(record)))
            self._db.execute("DELETE FROM model WHERE version <= ?", (version - self.keep,))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return version

    def version_of(self, number: int) -> int | None:
        """Return the model version that round `number` committed, None when it committed none."""
        row = self._db.execute("SELECT number FROM round WHERE number = ?", (number,)).fetchone()
        return None if row is None else int(row[0]) + 1

    def begin(self) -> None:
        """Note, once and durably, that a round begins: from now on devices may hold work for this database."""
        if not self.begun:
            self._db.execute(_BEGUN)
            self.begun = True

    def rounds(self) -> list[dict[str, Any]]:
        """Return the log of rounds, oldest first."""
        return [json.loads(r[0]) for r in self._db.execute("SELECT record FROM round ORDER BY number")]

    def close(self) -> None:
        """Close the database."""
        self._db.close()
