# SPDX-License-Identifier: Apache-2.0
"""What survives the server: models, the log of rounds, who was selected. Never a device's update."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fedmote.errors import StoreError
from fedmote.model.layout import Layout, Model
from fedmote.store.assignments import Assignments
from fedmote.store.database import ANEW, Database
from fedmote.store.requests import Requests
from fedmote.store.schema import MIGRATIONS
from fedmote_device import kernels


class Store:
    """One federation's database. Model 1 is where round 1 starts; round n commits model n + 1.

    path: of the database, or ":memory:". initial: model 1 of a new database. keep: number of models that are kept;
    older ones are deleted. begun: whether a round was ever started. StoreError, StoreUnavailableError: see Database.
    """

    begun: bool

    def __init__(self, path: str | Path, layout: Layout, initial: Model, keep: int = 10) -> None:
        self.path, self.keep = path, keep
        self._layout, self._initial = layout, initial
        self._database = Database(path, self._prepare)
        self.assignments = Assignments(self._database)
        self.requests = Requests(self._database)
        try:
            self._committed = self._check()
        except BaseException:
            self.close()
            raise
        self._database.empty_log()

    def close(self) -> None:
        """Close the database, so that another process may have it."""
        self._database.close()

    # ---- models

    def latest(self) -> tuple[int, int, Model]:
        """Return (version, round that made it, model) of the latest model. StoreError: it is damaged."""
        rows = self._database.read("SELECT version, round, crc32, elements FROM model ORDER BY version DESC LIMIT 1")
        version, number, crc32, data = rows[0] if rows else (0, 0, 0, b"no model")
        return version, number, self._model_of(version, crc32, data)

    def model(self, version: int) -> Model:
        """Return a model that is kept. StoreError: it is not kept, or it is damaged."""
        rows = self._database.read("SELECT crc32, elements FROM model WHERE version = ?", version)
        if not rows:
            raise StoreError(f"{self.path} has no model {version}; it keeps the last {self.keep}")
        return self._model_of(version, *rows[0])

    def has_model(self, version: int) -> bool:
        """Tell whether a model is kept."""
        return bool(self._database.read("SELECT 1 FROM model WHERE version = ?", version))

    @property
    def released(self) -> int:
        """Version of the model that was rolled out to all devices; 0: none."""
        return int(self._database.read("SELECT released FROM federation")[0][0])

    def set_released(self, version: int) -> None:
        """Note durably that a model was rolled out to all devices; it is kept, however old. StoreError: it is gone."""
        self.model(version)
        with self._database.transaction():
            self._database.write("UPDATE federation SET released = ?", version)
            self._database.write("DELETE FROM held")

    def keep_models(self, versions: set[int]) -> None:
        """Keep these models, and no others for a roll-out, until the next release. StoreError: one of them is gone."""
        for version in versions:
            self.model(version)
        if {row[0] for row in self._database.read("SELECT version FROM held")} == versions:
            return
        with self._database.transaction():
            self._database.write("DELETE FROM held")
            self._database.write_many("INSERT INTO held VALUES (?)", [(version,) for version in sorted(versions)])

    # ---- rounds

    def commit(
        self,
        number: int,
        model: Model,
        record: dict[str, Any],
        counted: Iterable[str] = (),
        selected: Mapping[str, int] = MappingProxyType({}),
        void: bool = False,
    ) -> int:
        """Make a round's model durable; return its version. A crash after this returns does not lose it.

        record: of the round, as JSON takes it. counted: devices whose assigned update the model holds. selected: for
        each device selected since the last commit, its latest round. void: whether no device is awaited any longer.
        """
        version, database = number + 1, self._database
        with database.transaction():
            self._insert(version, number, model)
            database.write("INSERT INTO round VALUES (?, ?)", number, json.dumps(record))
            database.write(
                "DELETE FROM model WHERE version <= ? AND version != (SELECT released FROM federation)"
                " AND version NOT IN (SELECT version FROM held)",
                version - self.keep,
            )
            database.write_many("UPDATE assignment SET version = ? WHERE device = ?", [(version, d) for d in counted])
            database.write_many("INSERT OR REPLACE INTO device VALUES (?, ?)", selected.items())
            if void:
                database.write("DELETE FROM assignment WHERE version IS NULL")
        self._committed = number
        database.empty_log()
        return version

    def version_of(self, number: int) -> int | None:
        """Return the model version that round `number` committed; None: it committed none."""
        return number + 1 if 1 <= number <= self._committed else None

    def rounds(self) -> list[dict[str, Any]]:
        """Return the records of all rounds, the oldest first."""
        return [json.loads(row[0]) for row in self._database.read("SELECT record FROM round ORDER BY number")]

    def note_begun(self) -> None:
        """Note durably, the first time, that a round starts: from then on devices may hold work for this database."""
        if not self.begun:
            with self._database.transaction():
                self._database.write("UPDATE federation SET begun = 1")
            self.begun = True

    def last_selected(self, devices: Sequence[str]) -> dict[str, int]:
        """Return the committed round for which each device was last selected; one that never was is left out."""
        query = "SELECT device, asked FROM device WHERE device IN (SELECT value FROM json_each(?))"
        return dict(self._database.read(query, json.dumps(devices)))

    # ---- opening

    def _prepare(self, database: Database) -> None:
        """Bring the database to the present format, with its first model."""
        with database.transaction():
            version = database.read("PRAGMA user_version")[0][0]
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{self.path} is of a newer fedmote (format {version}); this one reads up to {len(MIGRATIONS)}"
                )
            for number, migration in enumerate(MIGRATIONS[version:], version + 1):
                for statement in migration:
                    database.write(statement)
                database.write(f"PRAGMA user_version = {number}")
            if not database.read("SELECT 1 FROM federation"):
                database.write("INSERT INTO federation (layout_crc32) VALUES (?)", self._layout.crc32)
                self._insert(1, 0, self._initial, database)
        crc32, begun = database.read("SELECT layout_crc32, begun FROM federation")[0]
        if crc32 != self._layout.crc32:
            raise StoreError(f"{self.path} holds a model of another layout; name another data folder or tensors")
        self.begun = bool(begun)

    def _check(self) -> int:
        """Find damage now instead of in the middle of a round; return the last committed round."""
        found = self._database.read("PRAGMA quick_check(1)")[0][0]
        if found != "ok":
            raise StoreError(f"{self.path} is damaged ({found}); {ANEW}")
        version, number, _ = self.latest()
        for kept in self._database.read("SELECT version FROM model"):
            self.model(kept[0])
        last = self._database.read("SELECT ifnull(max(number), 0), count(*) FROM round")[0]
        if not version - 1 == number == last[0] == last[1]:
            raise StoreError(
                f"{self.path} is damaged (the newest model is of round {number}, the log has {last[1]} rounds up to "
                f"{last[0]}); {ANEW}"
            )
        return number

    def _insert(self, version: int, number: int, model: Model, database: Database | None = None) -> None:
        data = np.ascontiguousarray(model, "<f4").tobytes()
        row = (version, number, kernels.crc32(data), data)
        (database or self._database).write("INSERT INTO model VALUES (?, ?, ?, ?)", *row)

    def _model_of(self, version: int, crc32: int, data: bytes) -> Model:
        if kernels.crc32(data) != crc32:
            raise StoreError(f"{self.path} is damaged (model {version} does not match its checksum); {ANEW}")
        return np.frombuffer(data, "<f4").astype(np.float32)
