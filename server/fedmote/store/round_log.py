# SPDX-License-Identifier: Apache-2.0
"""The log of committed rounds, the last selection of each device, and whether any round was ever started."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedmote.store.database import Database


class RoundLog:
    """One record for each committed round. begun: whether a round was ever started."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.begun = bool(database.read("SELECT begun FROM federation")[0][0])

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all rounds, the oldest first."""
        return [json.loads(row[0]) for row in self._database.read("SELECT record FROM round ORDER BY number")]

    def last_selected(self, devices: Sequence[str]) -> dict[str, int]:
        """Return the committed round for which each device was last selected. A device that never was is left out."""
        query = "SELECT device, asked FROM device WHERE device IN (SELECT value FROM json_each(?))"
        return dict(self._database.read(query, json.dumps(devices)))

    def note_begun(self) -> None:
        """Note durably, the first time, that a round starts: from then on devices may hold work for this database."""
        if not self.begun:
            with self._database.transaction():
                self._database.write("UPDATE federation SET begun = 1")
            self.begun = True

    def insert(self, number: int, record: Mapping[str, object]) -> None:
        """Write the record of round `number`, within a transaction."""
        self._database.write("INSERT INTO round VALUES (?, ?)", number, json.dumps(record))

    def set_last_selected(self, selected: Mapping[str, int]) -> None:
        """Write the round for which each of these devices was last selected, within a transaction."""
        self._database.write_many("INSERT OR REPLACE INTO device VALUES (?, ?)", selected.items())

    def extent(self) -> tuple[int, int]:
        """Return (number of the last round, count of rounds), which are equal in a sound database."""
        last, count = self._database.read("SELECT ifnull(max(number), 0), count(*) FROM round")[0]
        return last, count
