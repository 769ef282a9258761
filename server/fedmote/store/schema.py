# SPDX-License-Identifier: Apache-2.0
"""The format of the database, and its migrations."""

from __future__ import annotations

from typing import Final

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
        " OR EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'begun')",  # a table once stood for it
        "DROP TABLE IF EXISTS begun",
    ),
    (  # asynchronous rounds: the last plan that each device was given, and the version that its update went into
        "CREATE TABLE assignment (device TEXT PRIMARY KEY, round INTEGER NOT NULL, version INTEGER) WITHOUT ROWID",
    ),
    (  # the device registry: what fairness must not forget
        "CREATE TABLE device (device TEXT PRIMARY KEY, asked INTEGER NOT NULL) WITHOUT ROWID",
    ),
    # what operators ask of the fleet, and the result: an aggregate, or why there is none; they take it out again
    ("CREATE TABLE task (id INTEGER PRIMARY KEY AUTOINCREMENT, request TEXT NOT NULL, result TEXT)",),
    # the version that was rolled out to all; 0: none
    ("ALTER TABLE federation ADD COLUMN released INTEGER NOT NULL DEFAULT 0",),
    # the models of a roll-out under way: kept, however long it takes
    ("CREATE TABLE held (version INTEGER PRIMARY KEY)",),
)
"""Statements that lead from each format of the database to the next, from 0, an empty one. PRAGMA user_version holds
the format. Append; what was released is never changed: a database that went through it will not do so again."""
