# SPDX-License-Identifier: Apache-2.0
"""One round, as it goes into the log."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedmote.learning.update import Update


@dataclass(slots=True)
class Record:
    """One round, as it goes into the log.

    round: its number. selected: devices that were sent its plan. reported: updates folded. partial: those of them that
    were partial. refused: updates that were refused. dropped: selected devices whose link broke. withdrawn: devices
    that gave up. examples: number behind the folded updates. loss: their mean training loss, weighted by examples.
    staleness: mean of the folded updates, in rounds. rolled_back_to: the earlier model that was committed again in
    place of a round; 0: none. tier: the group of devices that was selected (fedmote.fleet.selection).
    soft_deadline_s: of its plan. seconds: from plan to commit. metrics: figures of the new model. failure: why the
    round failed, so that its model is the one before; "": it did not.
    """

    round: int
    selected: int = 0
    reported: int = 0
    partial: int = 0
    refused: int = 0
    dropped: int = 0
    withdrawn: int = 0
    examples: int = 0
    loss: float = 0.0
    staleness: float = 0.0
    rolled_back_to: int = 0
    tier: int = 1
    soft_deadline_s: float = 0.0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    failure: str = ""

    def count(self, update: Update) -> None:
        """Count an update that was folded."""
        self.reported += 1
        self.partial += update.partial
        self.examples += update.examples
        self.loss += (update.loss - self.loss) * update.examples / self.examples
