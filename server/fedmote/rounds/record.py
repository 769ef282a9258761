# SPDX-License-Identifier: Apache-2.0
"""One round, as it goes into the log."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Record:
    """One round, as it goes into the log."""

    round: int
    selected: int = 0
    reported: int = 0
    partial: int = 0
    dropped: int = 0
    withdrawn: int = 0
    examples: int = 0
    staleness: float = 0.0  # mean of the updates, in rounds
    rolled_back_to: int = 0  # the earlier model that was committed anew, in place of a round
    tier: int = 1  # whose turn it was (fedmote.selection)
    soft_deadline_s: float = 0.0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
