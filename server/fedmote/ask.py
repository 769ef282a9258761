# SPDX-License-Identifier: Apache-2.0
"""The operator's side of tasks: `fedmote evaluate` and `fedmote query` ask a running server through its database."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import click

from fedmote.config import ConfigError, load
from fedmote.tasks import Evaluate, HeavyHitters, Histogram, Quantiles, Request, Result, TaskError, to_json

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


def _run(federation: Path, make: Callable[[], Request]) -> None:
    """Print the result of a task as JSON."""
    try:
        result = ask(load(federation).database, make())
    except (ConfigError, TaskError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=2))


_federation = click.argument("federation", type=click.Path(path_type=Path, dir_okay=False, exists=True))
_cohort = click.option(
    "--cohort", type=click.IntRange(0), default=0, help="Devices asked, at least; 0: all that are there."
)


@click.command()
@_federation
@click.option("--version", "version", type=click.IntRange(0), default=0, help="Of the model; 0: the latest.")
@_cohort
def evaluate(federation: Path, version: int, cohort: int) -> None:
    """Evaluate a committed model on the devices' own data; the server of FEDERATION must run."""
    _run(federation, lambda: Evaluate(version, cohort))


@click.command()
@_federation
@click.option("--field", required=True, help='Of the devices\' data: "label", "feature0", or what the firmware names.')
@click.option("--range", "limits", type=(float, float), required=True, metavar="LOW HIGH")
@click.option("--histogram", type=click.IntRange(1, 32), metavar="BINS", help="Counts in so many bins, sum and mean.")
@click.option("--quantile", type=float, multiple=True, metavar="SHARE", help="0.5: the median. May be repeated.")
@click.option("--heavy", type=float, metavar="SHARE", help="Whole numbers that make up at least this share.")
@_cohort
def query(
    federation: Path, field: str, limits: tuple[float, float], histogram: int | None, quantile: tuple[float, ...],
    heavy: float | None, cohort: int,
) -> None:  # fmt: skip
    """Ask about a field of the devices' data; the server of FEDERATION must run."""
    if sum(bool(what) for what in (histogram, quantile, heavy)) != 1:
        raise click.UsageError("give one of --histogram, --quantile and --heavy")
    low, high = limits

    def make() -> Request:
        if histogram:
            return Histogram(field, low, high, histogram, cohort)
        if quantile:
            return Quantiles(field, low, high, quantile, cohort=cohort)
        if not (low.is_integer() and high.is_integer()):
            raise TaskError(f"range {low} to {high}: codes are whole numbers")
        return HeavyHitters(field, int(low), int(high), heavy or 0.0, cohort)

    _run(federation, make)
