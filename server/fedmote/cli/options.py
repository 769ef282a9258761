# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import click

from fedmote.config.settings import load
from fedmote.errors import ConfigError


def kept_versions(database: Path) -> tuple[dict[int, int], int]:
    """Return the stored models, version to round, and the released version, 0: none."""
    if not database.exists():
        raise click.ClickException(f"{database} does not exist; start the server first")
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as db:
            kept = dict(db.execute("SELECT version, round FROM model ORDER BY version").fetchall())
            return kept, int(db.execute("SELECT released FROM federation").fetchone()[0])
    except sqlite3.Error as error:
        raise click.ClickException(f"{database}: {error}; start the server of this version first") from error


federation_argument = click.argument("federation", type=click.Path(path_type=Path, dir_okay=False, exists=True))

version_option = click.option(
    "--version",
    "version",
    type=click.IntRange(1),
    required=True,
    help="Version of a stored model; see `fedmote models`.",
)


def database_of(federation: Path) -> Path:
    """Return the database of a federation.toml. ClickException: the file is wrong."""
    try:
        return load(federation).database
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


cohort_option = click.option(
    "--cohort", type=click.IntRange(0), default=0, help="Minimum number of devices asked; 0: all that are online."
)
