# SPDX-License-Identifier: Apache-2.0
"""A SQLite file that one server has for itself: how it is made, opened, locked, written, and what its errors mean."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from fedmote.errors import StoreError, StoreUnavailableError

LOCK_WAIT_S = 1.0  # seconds to wait for another program that locks the database; the server stands still meanwhile
ANEW: Final = "restore the file from a backup, or move it away to start the federation anew"
_WRITABLE: Final = "the server's user must be able to write the file and its folder"
_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "free some space on that disk",
    sqlite3.SQLITE_BUSY: "another program has locked it; close that program",
    sqlite3.SQLITE_LOCKED: "another program has locked it; close that program",
    sqlite3.SQLITE_READONLY: _WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _WRITABLE,
    sqlite3.SQLITE_PERM: _WRITABLE,
    sqlite3.SQLITE_IOERR: "check that disk; it may be full or broken",
}
"""What a person can do about a temporary error, by SQLite's code. Any other code means that the file is damaged."""


class Database:
    """One SQLite database in WAL mode.

    path: of the file, or ":memory:". prepare: brings an empty or older database to the present format; called on a new
    file before it gets its name, and on each database that is opened.

    Errors of SQLite become a StoreError, temporary ones a StoreUnavailableError. One process at a time has the
    database; it holds a lock on the file beside it that ends in .lock. Others may read.
    """

    def __init__(self, path: str | Path, prepare: Callable[[Database], None]) -> None:
        self.path = path
        self._file: os.stat_result | None = None
        with contextlib.ExitStack() as held:
            if str(path) != ":memory:":
                path = Path(path)
                held.callback(os.close, _lock(path))
                if not path.exists():
                    self._create(path, prepare)
                elif path.stat().st_size == 0:
                    raise StoreError(f"{path} is empty, which a database never is; {ANEW}")
            self._open(path, "WAL")
            held.callback(self._connection.close)
            prepare(self)
            if str(path) != ":memory:":
                self._file = os.stat(path)
            self._held = held.pop_all()

    def close(self) -> None:
        """Close the database, so that another process may have it."""
        self._held.close()

    def read(self, query: str, *arguments: object) -> list[Any]:
        """Return the rows of a query."""
        with self._translate_errors():
            return self._connection.execute(query, arguments).fetchall()

    def write(self, statement: str, *arguments: object) -> None:
        """Execute a statement, within transaction()."""
        self._connection.execute(statement, arguments)

    def write_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Execute a statement for each row, within transaction()."""
        self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything that is written within it durable when it ends, or nothing."""
        if self._file is not None and not _is_same_file(self.path, self._file):
            # SQLite would go on writing to a file without a name.
            raise StoreUnavailableError(f"{self.path} was moved or deleted while the server runs; put it back")
        with self._translate_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # after some errors SQLite has ended it by itself
                    self._connection.execute("ROLLBACK")
                raise

    def empty_log(self) -> None:
        """Move the write-ahead log into the database file, so that losing the log loses nothing.

        It may fail, for example while somebody reads or the disk is full. Then the next call does it.
        """
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _open(self, path: str | Path, journal: str) -> None:
        with self._translate_errors():
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT_S)
            self._connection.execute(f"PRAGMA journal_mode = {journal}")
            self._connection.execute("PRAGMA synchronous = FULL")

    def _create(self, path: Path, prepare: Callable[[Database], None]) -> None:
        """Make the database under another name first, so that a file with the real name is always whole."""
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size > 0:
            raise StoreError(f"{path} is gone but {log.name} is still there; restore both, or move that one away too")
        new = Path(f"{path}.new")
        for leftover in (log, Path(f"{path}-shm"), new, Path(f"{new}-journal")):
            leftover.unlink(missing_ok=True)
        new.touch(0o600)  # SQLite gives its other files the same mode
        self._open(new, "DELETE")
        with contextlib.closing(self._connection):
            prepare(self)
        new.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn errors of SQLite into a StoreError that says where it happened and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            remedy = _REMEDIES.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF)
            kind = StoreError if remedy is None else StoreUnavailableError
            raise kind(f"{self.path}: {error}; {remedy or ANEW}") from error


def _is_same_file(path: str | Path, file: os.stat_result) -> bool:
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
        lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
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


def is_served(path: Path) -> bool:
    """Return whether a server holds the database's lock."""
    try:
        with Path(f"{path}.lock").open("r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
