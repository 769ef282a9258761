# SPDX-License-Identifier: Apache-2.0
"""The stored models, and which of them was released to all devices."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np

from fedmote.errors import StoreError
from fedmote.model.layout import Model
from fedmote.store.database import ANEW, Database
from fedmote_device import kernels


class Models:
    """The newest `keep_newest` models, the released one, and those of a roll-out."""

    def __init__(self, database: Database, keep_newest: int) -> None:
        self._database, self.keep_newest = database, keep_newest

    def latest(self) -> tuple[int, int, Model]:
        """Return (version, round that made it, model) of the latest model. StoreError: it is damaged."""
        rows = self._database.read("SELECT version, round, crc32, elements FROM model ORDER BY version DESC LIMIT 1")
        version, number, crc32, data = rows[0] if rows else (0, 0, 0, b"no model")
        return version, number, self._decode(version, crc32, data)

    def get(self, version: int) -> Model:
        """Return a stored model. StoreError: it is not stored, or it is damaged."""
        rows = self._database.read("SELECT crc32, elements FROM model WHERE version = ?", version)
        if not rows:
            raise StoreError(f"{self._database.path} has no model {version}; it keeps the last {self.keep_newest}")
        return self._decode(version, *rows[0])

    def versions(self) -> list[int]:
        """Return the versions that are stored, the oldest first."""
        return [row[0] for row in self._database.read("SELECT version FROM model ORDER BY version")]

    def has(self, version: int) -> bool:
        """Return whether a model is stored."""
        return bool(self._database.read("SELECT 1 FROM model WHERE version = ?", version))

    @property
    def released(self) -> int:
        """Version of the model that was rolled out to all devices; 0: none."""
        return int(self._database.read("SELECT released FROM federation")[0][0])

    def set_released(self, version: int) -> None:
        """Note durably that a model was rolled out to all devices; it is kept, however old. StoreError: it is gone."""
        self.get(version)
        with self._database.transaction():
            self._database.write("UPDATE federation SET released = ?", version)
            self._database.write("DELETE FROM held")

    def keep_for_rollout(self, versions: set[int]) -> None:
        """Keep these models until the next release, however old, and no others. StoreError: one of them is gone."""
        for version in versions:
            self.get(version)
        if {row[0] for row in self._database.read("SELECT version FROM held")} == versions:
            return
        with self._database.transaction():
            self._database.write("DELETE FROM held")
            self._database.write_many("INSERT INTO held VALUES (?)", [(version,) for version in sorted(versions)])

    def insert(self, version: int, number: int, model: Model) -> None:
        """Write the model that round `number` made, within a transaction."""
        data = np.ascontiguousarray(model, "<f4").tobytes()
        self._database.write("INSERT INTO model VALUES (?, ?, ?, ?)", version, number, kernels.crc32(data), data)

    def delete_old(self, newest: int) -> None:
        """Delete models that need not be kept when `newest` is the newest, within a transaction."""
        self._database.write(
            "DELETE FROM model WHERE version <= ? AND version != (SELECT released FROM federation)"
            " AND version NOT IN (SELECT version FROM held)",
            newest - self.keep_newest,
        )

    def check(self) -> None:
        """Read every stored model. StoreError: one is damaged."""
        for version in self.versions():
            self.get(version)

    def _decode(self, version: int, crc32: int, data: bytes) -> Model:
        if kernels.crc32(data) != crc32:
            path = self._database.path
            raise StoreError(f"{path} is damaged (model {version} does not match its checksum); {ANEW}")
        return np.frombuffer(data, "<f4").astype(np.float32)


def stored_versions(path: Path) -> tuple[dict[int, int], int]:
    """Return (version to round of each stored model, released version or 0) of a database that a server may be using.

    StoreError: it cannot be read.
    """
    if not path.exists():
        raise StoreError(f"{path} does not exist; start the server first")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            rounds = dict(db.execute("SELECT version, round FROM model ORDER BY version").fetchall())
            return rounds, int(db.execute("SELECT released FROM federation").fetchone()[0])
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; start the server of this version first") from error
