# SPDX-License-Identifier: Apache-2.0
"""What survives the server: models and the log of rounds, in SQLite. Never a device's update."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmote.layout import Layout
from fedmote_device import kernels

# The database's format is the number of these that it went through (PRAGMA user_version). Only append.
_MIGRATIONS = (
    """
CREATE TABLE model (version INTEGER PRIMARY KEY, round INTEGER NOT NULL UNIQUE, crc32 INTEGER NOT NULL,
                    elements BLOB NOT NULL);
CREATE TABLE round (number INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE federation (layout_crc32 INTEGER NOT NULL);
""",
    # Asynchronous rounds: the last plan that each device was given, and the version that its update went into.
    """
CREATE TABLE assignment (device TEXT PRIMARY KEY, round INTEGER NOT NULL, version INTEGER) WITHOUT ROWID;
""",
)
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
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"the database is of a newer fedmote (format {version}); this one reads up to {len(_MIGRATIONS)}"
            )
        for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
            self._db.executescript(f"BEGIN;{statements}PRAGMA user_version = {number};COMMIT;")
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
        return row[0], row[1], _checked(row)

    def model(self, version: int) -> NDArray[np.float32]:
        """Return a model that is kept. StoreError: it is not, or does not match its checksum."""
        query = "SELECT version, round, crc32, elements FROM model WHERE version = ?"
        row = self._db.execute(query, (version,)).fetchone()
        if row is None:
            raise StoreError(f"model {version} is not kept any longer; the last {self.keep} are")
        return _checked(row)

    def commit(
        self, number: int, model: NDArray[np.float32], record: dict[str, Any], counted: Iterable[str] = ()
    ) -> int:
        """Make a round's model durable; return its version. After this returns, a crash does not lose it.

        counted: devices whose assigned work it holds.
        """
        version = self.latest()[0] + 1
        self._db.execute("BEGIN")
        try:
            self._insert(version, number, model)
            self._db.execute("INSERT INTO round VALUES (?, ?)", (number, json.dumps(record)))
            self._db.execute("DELETE FROM model WHERE version <= ?", (version - self.keep,))
            self._db.executemany("UPDATE assignment SET version = ? WHERE device = ?", [(version, d) for d in counted])
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

    def assign(self, devices: Iterable[str], number: int) -> None:
        """Note durably that devices are asked for an update of round `number`."""
        self._db.execute("BEGIN")
        rows = [(device, number) for device in devices]
        self._db.executemany("INSERT OR REPLACE INTO assignment VALUES (?, ?, NULL)", rows)
        self._db.execute("COMMIT")

    def unassign(self, device: str) -> None:
        """Note that nothing is awaited of a device any longer."""
        self._db.execute("DELETE FROM assignment WHERE device = ? AND version IS NULL", (device,))

    def outstanding(self, since: int) -> list[tuple[str, int]]:
        """Return (device, round) of what was assigned in round `since` or later and is in no committed model."""
        query = "SELECT device, round FROM assignment WHERE version IS NULL AND round >= ? ORDER BY device"
        return [(str(device), int(number)) for device, number in self._db.execute(query, (since,))]

    def counted_in(self, device: str, number: int) -> int | None:
        """Return the model version that holds the device's update of round `number`; None: none."""
        query = "SELECT version FROM assignment WHERE device = ? AND round = ?"
        row = self._db.execute(query, (device, number)).fetchone()
        return None if row is None else row[0]

    def rounds(self) -> list[dict[str, Any]]:
        """Return the log of rounds, oldest first."""
        return [json.loads(r[0]) for r in self._db.execute("SELECT record FROM round ORDER BY number")]

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _checked(row: tuple[int, int, int, bytes]) -> NDArray[np.float32]:
    version, _, crc32, data = row
    if kernels.crc32(data) != crc32:
        raise StoreError(f"model {version} does not match its checksum: the database is damaged; restore a backup")
    return np.frombuffer(data, "<f4").astype(np.float32)
