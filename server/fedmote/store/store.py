# SPDX-License-Identifier: Apache-2.0
"""The database of one federation: how it is opened and checked, and the commit of a round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from fedmote.errors import StoreError
from fedmote.model.layout import Layout, Model
from fedmote.store.assignments import Assignments
from fedmote.store.database import ANEW, Database
from fedmote.store.models import Models
from fedmote.store.requests import Requests
from fedmote.store.round_log import RoundLog
from fedmote.store.schema import migrate


class Store:
    """One federation's database. Model 1 is where round 1 starts; round n commits model n + 1.

    path: of the database, or ":memory:". initial: model 1 of a new database. keep: how many of the newest models are
    kept. The attributes models, rounds, assignments and requests each read and write their own tables. StoreError,
    StoreUnavailableError: see Database.
    """

    def __init__(self, path: str | Path, layout: Layout, initial: Model, keep: int = 10) -> None:
        self.path = path
        self._database = Database(path, lambda database: _prepare(database, layout, initial))
        try:
            self.models = Models(self._database, keep)
            self.rounds = RoundLog(self._database)
            self.assignments = Assignments(self._database)
            self.requests = Requests(self._database)
            self._committed = self._check()
        except BaseException:
            self.close()
            raise
        self._database.empty_log()

    def close(self) -> None:
        """Close the database, so that another process may have it."""
        self._database.close()

    def commit(
        self,
        number: int,
        model: Model,
        record: Mapping[str, object],
        counted: Iterable[str] = (),
        selected: Mapping[str, int] = MappingProxyType({}),
        void: bool = False,
    ) -> int:
        """Make a round's model durable; return its version. A crash after this returns does not lose it.

        record: of the round, as JSON takes it. counted: devices whose assigned update the model holds. selected: for
        each device selected since the last commit, its latest round. void: whether no device is awaited any longer.
        """
        version = number + 1
        with self._database.transaction():
            self.models.insert(version, number, model)
            self.rounds.insert(number, record)
            self.models.delete_old(version)
            self.assignments.set_version(counted, version)
            self.rounds.set_last_selected(selected)
            if void:
                self.assignments.delete_open()
        self._committed = number
        self._database.empty_log()
        return version

    def version_of(self, number: int) -> int | None:
        """Return the model version that round `number` committed; None: it committed none."""
        return number + 1 if 1 <= number <= self._committed else None

    def _check(self) -> int:
        """Find damage now instead of in the middle of a round; return the last committed round."""
        found = self._database.read("PRAGMA quick_check(1)")[0][0]
        if found != "ok":
            raise StoreError(f"{self.path} is damaged ({found}); {ANEW}")
        version, number, _ = self.models.latest()
        self.models.check()
        last, count = self.rounds.extent()
        if not version - 1 == number == last == count:
            raise StoreError(
                f"{self.path} is damaged (the newest model is of round {number}, the log has {count} rounds up to "
                f"{last}); {ANEW}"
            )
        return number


def _prepare(database: Database, layout: Layout, initial: Model) -> None:
    """Bring a database to the present format, with its first model. StoreError: it is not of this federation."""
    with database.transaction():
        migrate(database)
        if not database.read("SELECT 1 FROM federation"):
            database.write("INSERT INTO federation (layout_crc32) VALUES (?)", layout.crc32)
            Models(database, 1).insert(1, 0, initial)
    if database.read("SELECT layout_crc32 FROM federation")[0][0] != layout.crc32:
        raise StoreError(f"{database.path} holds a model of another layout; name another data folder or tensors")
