# SPDX-License-Identifier: Apache-2.0
"""Operators' requests: commands write them into the server's database, the server writes the results beside them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedmote.errors import TaskError
from fedmote.store.database import Database

OPERATOR_LOCK_WAIT_S = 10.0  # seconds that a command waits for the server's own transactions


class Requests:
    """The server's side. A request is JSON (fedmote.tasks.requests); its id is the row of the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, most: int) -> list[tuple[int, str]]:
        """Return (id, request) of requests without a result, the oldest first, at most `most`."""
        return self._database.read("SELECT id, request FROM task WHERE result IS NULL ORDER BY id LIMIT ?", most)

    def answer(self, request: int, result: Mapping[str, object]) -> None:
        """Write the result of a request. Nothing happens if its caller has deleted it."""
        with self._database.transaction():
            self._database.write("UPDATE task SET result = ? WHERE id = ?", json.dumps(result), request)


class PendingRequest:
    """An operator's side: one request in the database of a server. See submitted()."""

    def __init__(self, path: Path, connection: sqlite3.Connection, row: int | None) -> None:
        self._path, self._connection, self._row = path, connection, row

    def result(self) -> dict[str, Any] | None:
        """Return the result; None: it is not there yet. TaskError: the request is gone from the database."""
        answered = self._connection.execute("SELECT result FROM task WHERE id = ?", (self._row,)).fetchone()
        if answered is None:
            raise TaskError(f"the request was deleted from {self._path} by another program; ask again")
        result: dict[str, Any] | None = None if answered[0] is None else json.loads(answered[0])
        return result


@contextlib.contextmanager
def submitted(path: Path, request: str) -> Iterator[PendingRequest]:
    """Write a request into the database at `path`, and delete it at the end. TaskError: that cannot be done."""
    if not path.exists():
        raise TaskError(f"{path} does not exist; start the server first")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=OPERATOR_LOCK_WAIT_S)) as connection:
        try:
            row = connection.execute("INSERT INTO task (request) VALUES (?)", (request,)).lastrowid
            try:
                yield PendingRequest(path, connection, row)
            finally:
                connection.execute("DELETE FROM task WHERE id = ?", (row,))
        except sqlite3.Error as error:
            raise TaskError(f"{path}: {error}; is it the database of a server of this version?") from error
