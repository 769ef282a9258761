# SPDX-License-Identifier: Apache-2.0
"""The format of the database, and its migrations."""

from __future__ import annotations

from typing import Final

from fedmote.errors import StoreError
from fedmote.store.database import Database

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE model (version INTEGER PRIMARY KEY, round INTEGER NOT NULL UNIQUE, crc32 INTEGER NOT NULL,"
        " elements BLOB NOT NULL)",
        "CREATE TABLE round (number INTEGER PRIMARY KEY, record TEXT NOT NULL)",
        "CREATE TABLE federation (layout_crc32 INTEGER NOT NULL)",
    ),
    (
        "ALTER TABLE federation ADD COLUMN begun INTEGER NOT NULL DEFAULT 0",
        "UPDATE federation SET begun = EXISTS (SELECT 1 FROM round)"
        " OR EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'begun')",  # once this was a table
        "DROP TABLE IF EXISTS begun",
    ),
    # Asynchronous rounds: the last plan that each device got, and the model version that holds its update.
    ("CREATE TABLE assignment (device TEXT PRIMARY KEY, round INTEGER NOT NULL, version INTEGER) WITHOUT ROWID",),
    # Fair selection: the round (`asked`) for which each device was last selected.
    ("CREATE TABLE device (device TEXT PRIMARY KEY, asked INTEGER NOT NULL) WITHOUT ROWID",),
    # Operators' requests. The server writes the result or an error; the command that asked deletes the row.
    ("CREATE TABLE task (id INTEGER PRIMARY KEY AUTOINCREMENT, request TEXT NOT NULL, result TEXT)",),
    # The model version that was rolled out to all devices; 0: none.
    ("ALTER TABLE federation ADD COLUMN released INTEGER NOT NULL DEFAULT 0",),
    # The models of the present roll-out, which are kept however long it takes.
    ("CREATE TABLE held (version INTEGER PRIMARY KEY)",),
)
"""Statements that lead from each format of the database to the next, from 0, an empty one. PRAGMA user_version holds
the format. Append only. A released migration is never changed, because a database that has it does not run it again."""


def migrate(database: Database) -> None:
    """Bring a database to the newest format, within a transaction. StoreError: it is of a newer fedmote."""
    version = database.read("PRAGMA user_version")[0][0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{database.path} is of a newer fedmote (format {version}); this one reads up to {len(MIGRATIONS)}; "
            "update fedmote, or name another data folder"
        )
    for number, migration in enumerate(MIGRATIONS[version:], version + 1):
        for statement in migration:
            database.write(statement)
        database.write(f"PRAGMA user_version = {number}")
