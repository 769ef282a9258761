# SPDX-License-Identifier: Apache-2.0
"""The assignments of asynchronous rounds: which device got which round's plan, and which model holds its update."""

from __future__ import annotations

from collections.abc import Iterable

from fedmote.store.database import Database


class Assignments:
    """The last plan of each device. An assignment is open until a committed model holds the update."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, devices: Iterable[str], number: int) -> None:
        """Note durably that devices were selected for round `number`."""
        rows = [(device, number) for device in devices]
        with self._database.transaction():
            self._database.write_many("INSERT OR REPLACE INTO assignment VALUES (?, ?, NULL)", rows)

    def remove(self, device: str) -> None:
        """Delete a device's open assignment: its update is no longer awaited."""
        with self._database.transaction():
            self._database.write("DELETE FROM assignment WHERE device = ? AND version IS NULL", device)

    def open_since(self, number: int) -> list[tuple[str, int]]:
        """Return (device, round) of the open assignments of round `number` or later."""
        query = "SELECT device, round FROM assignment WHERE version IS NULL AND round >= ? ORDER BY device"
        return self._database.read(query, number)

    def version_with(self, device: str, number: int) -> int | None:
        """Return the model version that holds the device's update of round `number`; None: none does."""
        rows = self._database.read("SELECT version FROM assignment WHERE device = ? AND round = ?", device, number)
        return rows[0][0] if rows else None

    def set_version(self, devices: Iterable[str], version: int) -> None:
        """Write which model version holds these devices' updates, within a transaction."""
        rows = [(version, device) for device in devices]
        self._database.write_many("UPDATE assignment SET version = ? WHERE device = ?", rows)

    def delete_open(self) -> None:
        """Delete all open assignments, within a transaction."""
        self._database.write("DELETE FROM assignment WHERE version IS NULL")
