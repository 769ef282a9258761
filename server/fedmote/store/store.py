# SPDX-License-Identifier: Apache-2.0
"""What survives the server: models and the log of rounds, in SQLite. Never a device's update."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmote.errors import StoreError, StoreUnavailableError
from fedmote.model.layout import Layout
from fedmote.store.schema import MIGRATIONS
from fedmote_device import kernels

LOCK_WAIT_S = 1.0  # for another program that has the database locked; the server stands still meanwhile
ANEW: Final = "restore the file from a backup, or move it away to start the federation anew"
_WRITABLE: Final = "the server's user must be able to write the file and its folder"
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "free some space on that disk",
    sqlite3.SQLITE_BUSY: "another program has locked it; close that one",
    sqlite3.SQLITE_LOCKED: "another program has locked it; close that one",
    sqlite3.SQLITE_READONLY: _WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _WRITABLE,
    sqlite3.SQLITE_PERM: _WRITABLE,
    sqlite3.SQLITE_IOERR: "look at that disk: it may be full or broken",
}
"""What a person can do about errors that pass, by SQLite's code; any other means that the file is damaged."""


class Store:
    """One federation's database. Model 1 is where round 1 starts; round n commits model n + 1.

    path: of the database, or ":memory:". keep: models that stay; older ones are deleted.

    Errors of SQLite become a StoreError; those that pass become a StoreUnavailableError. One process at a time has the
    database, and holds the file beside it that ends in .lock; others may read.
    """

    def __init__(self, path: str | Path, layout: Layout, initial: NDArray[np.float32], keep: int = 10) -> None:
        self.path, self.keep = path, keep
        self._file: os.stat_result | None = None
        with contextlib.ExitStack() as held:
            if str(path) != ":memory:":
                path = Path(path)
                held.callback(os.close, _lock(path))
                if not path.exists():
                    self._create(path, layout, initial)
                elif path.stat().st_size == 0:
                    raise StoreError(f"{path} is empty, which a database never is; {ANEW}")
            self._connect(path)
            held.callback(self._db.close)
            self._prepare(layout, initial)
            if str(path) != ":memory:":
                self._file = os.stat(path)
            self._committed = self._check()
            self._empty_log()
            self._held = held.pop_all()

    def _connect(self, path: str | Path) -> None:
        with self._telling():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT_S)

    def _create(self, path: Path, layout: Layout, initial: NDArray[np.float32]) -> None:
        """Make the database under another name first: what bears the real one is always whole."""
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size > 0:
            raise StoreError(f"{path} is gone but {log.name} is still there; restore both, or move that one away too")
        new = Path(f"{path}.new")
        for leftover in (log, Path(f"{path}-shm"), new, Path(f"{new}-journal")):
            leftover.unlink(missing_ok=True)
        self._connect(new)
        with contextlib.closing(self._db):
            self._prepare(layout, initial, journal="DELETE")
        new.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _prepare(self, layout: Layout, initial: NDArray[np.float32], journal: str = "WAL") -> None:
        """Bring the database to the present format, with its first model."""
        with self._telling():
            self._db.execute(f"PRAGMA journal_mode = {journal}")
            self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            version = self._read("PRAGMA user_version")[0][0]
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"{self.path} is of a newer fedmote (format {version}); this one reads up to {len(MIGRATIONS)}"
                )
            for number, migration in enumerate(MIGRATIONS[version:], version + 1):
                for statement in migration:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number}")
            if not self._read("SELECT 1 FROM federation"):
                self._db.execute("INSERT INTO federation (layout_crc32) VALUES (?)", (layout.crc32,))
                self._insert(1, 0, initial)
        crc32, begun = self._read("SELECT layout_crc32, begun FROM federation")[0]
        if crc32 != layout.crc32:
            raise StoreError(f"{self.path} holds a model of another layout; name another data folder or tensors")
        self.begun = bool(begun)  # a round was begun in this database

    def _check(self) -> int:
        """Find damage now instead of in the middle of a round; return the last committed round."""
        found = self._read("PRAGMA quick_check(1)")[0][0]
        if found != "ok":
            raise StoreError(f"{self.path} is damaged ({found}); {ANEW}")
        version, number, _ = self.latest()
        for kept in self._read("SELECT version FROM model"):
            self.model(kept[0])
        last = self._read("SELECT ifnull(max(number), 0), count(*) FROM round")[0]
        if not version - 1 == number == last[0] == last[1]:
            raise StoreError(
                f"{self.path} is damaged (the newest model is of round {number}, the log has {last[1]} rounds up to "
                f"{last[0]}); {ANEW}"
            )
        return number

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Make errors of SQLite ones that say where and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            remedy = _REMEDIES.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF)
            kind = StoreError if remedy is None else StoreUnavailableError
            raise kind(f"{self.path}: {error}; {remedy or ANEW}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make all that is written within it durable when it ends, or nothing."""
        if self._file is not None and not _is(self.path, self._file):
            # SQLite would go on writing to where nobody finds it.
            raise StoreUnavailableError(f"{self.path} was moved or deleted while the server runs; put it back")
        with self._telling():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite has ended it by itself after some errors
                    self._db.execute("ROLLBACK")
                raise

    def _empty_log(self) -> None:
        """Move what is in the log beside the file into it: who loses the log then loses nothing.

        It may fail, as when somebody reads or the disk is full: then the next one does it.
        """
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _read(self, query: str, *arguments: Any) -> list[Any]:
        with self._telling():
            return self._db.execute(query, arguments).fetchall()

    def _insert(self, version: int, number: int, model: NDArray[np.float32]) -> None:
        data = np.ascontiguousarray(model, "<f4").tobytes()
        self._db.execute("INSERT INTO model VALUES (?, ?, ?, ?)", (version, number, kernels.crc32(data), data))

    def latest(self) -> tuple[int, int, NDArray[np.float32]]:
        """Return (version, round that made it, model). StoreError when it does not match its checksum."""
        rows = self._read("SELECT version, round, crc32, elements FROM model ORDER BY version DESC LIMIT 1")
        version, number, crc32, data = rows[0] if rows else (0, 0, 0, b"no model")
        return version, number, self._checked(version, crc32, data)

    def model(self, version: int) -> NDArray[np.float32]:
        """Return a model that is kept. StoreError: it is not, or does not match its checksum."""
        rows = self._read("SELECT crc32, elements FROM model WHERE version = ?", version)
        if not rows:
            raise StoreError(f"{self.path} has no model {version}; it keeps the last {self.keep}")
        return self._checked(version, *rows[0])

    def has(self, version: int) -> bool:
        """Tell whether a model is kept."""
        return bool(self._read("SELECT 1 FROM model WHERE version = ?", version))

    def _checked(self, version: int, crc32: int, data: bytes) -> NDArray[np.float32]:
        if kernels.crc32(data) != crc32:
            raise StoreError(f"{self.path} is damaged (model {version} does not match its checksum); {ANEW}")
        return np.frombuffer(data, "<f4").astype(np.float32)

    def commit(
        self,
        number: int,
        model: NDArray[np.float32],
        record: dict[str, Any],
        counted: Iterable[str] = (),
        asked: Mapping[str, int] = MappingProxyType({}),
        void: bool = False,
    ) -> int:
        """Make a round's model durable; return its version. After this returns, a crash does not lose it.

        counted: devices whose assigned work it holds. asked: for those asked since the last commit, the latest round.
        void: whether nothing is awaited of anybody any longer.
        """
        version = number + 1
        with self._transaction():
            self._insert(version, number, model)
            self._db.execute("INSERT INTO round VALUES (?, ?)", (number, json.dumps(record)))
            self._db.execute(
                "DELETE FROM model WHERE version <= ? AND version != (SELECT released FROM federation)"
                " AND version NOT IN (SELECT version FROM held)",
                (version - self.keep,),
            )
            self._db.executemany("UPDATE assignment SET version = ? WHERE device = ?", [(version, d) for d in counted])
            self._db.executemany("INSERT OR REPLACE INTO device VALUES (?, ?)", asked.items())
            if void:
                self._db.execute("DELETE FROM assignment WHERE version IS NULL")
        self._committed = number
        self._empty_log()
        return version

    def version_of(self, number: int) -> int | None:
        """Return the model version that round `number` committed, None when it committed none."""
        return number + 1 if 1 <= number <= self._committed else None

    def begin(self) -> None:
        """Note, once and durably, that a round begins: from now on devices may hold work for this database."""
        if not self.begun:
            with self._transaction():
                self._db.execute("UPDATE federation SET begun = 1")
            self.begun = True

    @property
    def released(self) -> int:
        """Version of the model that was rolled out to all; 0: none."""
        return int(self._read("SELECT released FROM federation")[0][0])

    def set_released(self, version: int) -> None:
        """Note durably that a model was rolled out to all: it is kept, however old. StoreError: it is not there."""
        self.model(version)
        with self._transaction():
            self._db.execute("UPDATE federation SET released = ?", (version,))
            self._db.execute("DELETE FROM held")

    def hold(self, versions: set[int]) -> None:
        """Keep these models, and none held before, until the next release. StoreError: one of them is not there."""
        for version in versions:
            self.model(version)
        if {row[0] for row in self._read("SELECT version FROM held")} == versions:
            return
        with self._transaction():
            self._db.execute("DELETE FROM held")
            self._db.executemany("INSERT INTO held VALUES (?)", [(version,) for version in sorted(versions)])

    def assign(self, devices: Iterable[str], number: int) -> None:
        """Note durably that devices are asked for an update of round `number`."""
        with self._transaction():
            rows = [(device, number) for device in devices]
            self._db.executemany("INSERT OR REPLACE INTO assignment VALUES (?, ?, NULL)", rows)

    def unassign(self, device: str) -> None:
        """Note that nothing is awaited of a device any longer."""
        with self._transaction():
            self._db.execute("DELETE FROM assignment WHERE device = ? AND version IS NULL", (device,))

    def outstanding(self, since: int) -> list[tuple[str, int]]:
        """Return (device, round) of what was assigned in round `since` or later and is in no committed model."""
        return self._read(
            "SELECT device, round FROM assignment WHERE version IS NULL AND round >= ? ORDER BY device", since
        )

    def counted_in(self, device: str, number: int) -> int | None:
        """Return the model version that holds the device's update of round `number`; None: none."""
        rows = self._read("SELECT version FROM assignment WHERE device = ? AND round = ?", device, number)
        return rows[0][0] if rows else None

    def asked(self, devices: Sequence[str]) -> dict[str, int]:
        """Return the committed round for which each device was asked last; one that never was is left out."""
        listed = "SELECT device, asked FROM device WHERE device IN (SELECT value FROM json_each(?))"
        return dict(self._read(listed, json.dumps(devices)))

    def requests(self, most: int) -> list[tuple[int, str]]:
        """Return (id, request) of the tasks that wait for a result, oldest first, and at most so many."""
        return self._read("SELECT id, request FROM task WHERE result IS NULL ORDER BY id LIMIT ?", most)

    def release(self, task: int, result: dict[str, Any]) -> None:
        """Write the result of a task, unless nobody waits for it any longer."""
        with self._transaction():
            self._db.execute("UPDATE task SET result = ? WHERE id = ?", (json.dumps(result), task))

    def rounds(self) -> list[dict[str, Any]]:
        """Return the log of rounds, oldest first."""
        return [json.loads(row[0]) for row in self._read("SELECT record FROM round ORDER BY number")]

    def close(self) -> None:
        """Close the database, so that another process may have it."""
        self._held.close()


def _is(path: str | Path, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)
    except OSError:
        return False


def _lock(path: Path) -> int:
    """Keep other servers off the database for as long as the returned descriptor is open, a crash included."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder where the database should be; move it away")
    name = f"{path}.lock"
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{name}: {error.strerror}; {_WRITABLE}") from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreError(
            f"{path}: another server uses it; stop that one, or give this federation a data folder of its own"
        ) from error
    return lock
