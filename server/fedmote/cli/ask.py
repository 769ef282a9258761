# SPDX-License-Identifier: Apache-2.0
"""Ask a running server for a task through its database."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import click

from fedmote.config.settings import load
from fedmote.errors import ConfigError, TaskError
from fedmote.tasks.base import Result
from fedmote.tasks.requests import Request, to_json

POLL_S = 0.5
ABSENT_S = 30.0  # without a server, which may be starting anew, on a busy machine
LOCK_WAIT_S = 10.0


def ask(database: Path, request: Request, sleep: Callable[[float], None] = time.sleep) -> Result:
    """Have the server that has this database do a task, and wait for its result. TaskError: why there is none."""
    if not database.exists():
        raise TaskError(f"{database} does not exist; start the server first")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=LOCK_WAIT_S)) as db:
        try:
            row = db.execute("INSERT INTO task (request) VALUES (?)", (to_json(request),)).lastrowid
            try:
                return _wait(db, row, database, sleep)
            finally:
                db.execute("DELETE FROM task WHERE id = ?", (row,))
        except sqlite3.Error as error:
            raise TaskError(f"{database}: {error}; is it the database of a server of this version?") from error


def _wait(db: sqlite3.Connection, row: int | None, database: Path, sleep: Callable[[float], None]) -> Result:
    absent = 0.0
    while True:
        answered = db.execute("SELECT result FROM task WHERE id = ?", (row,)).fetchone()
        if answered is None:
            raise TaskError("the request was taken out of the database")
        if answered[0] is not None:
            result: Result = json.loads(answered[0])
            if "error" in result:
                raise TaskError(result["error"])
            return result
        absent = 0.0 if _is_served(database) else absent + POLL_S
        if absent > ABSENT_S:
            raise TaskError(f"no server runs on {database}; start it with fedmote server")
        sleep(POLL_S)


def _is_served(database: Path) -> bool:
    """Tell whether a server holds the database's lock."""
    try:
        with Path(f"{database}.lock").open("r+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def run_task(federation: Path, make: Callable[[], Request]) -> None:
    """Print the result of a task as JSON."""
    try:
        result = ask(load(federation).database, make())
    except (ConfigError, TaskError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=2))
