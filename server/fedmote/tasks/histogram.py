# SPDX-License-Identifier: Apache-2.0
"""Counts, sum and mean of a field over the fleet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmote.errors import TaskError
from fedmote.tasks.base import check_range, check_types
from fedmote.tasks.query import MOST_BINS, Query, Steps


@dataclass(frozen=True, slots=True)
class Histogram:
    """Count a field's values in `bins` bins over [low, high), with their sum and mean.

    A value outside the range counts in the first or the last bin.
    """

    field: str
    low: float
    high: float
    bins: int = 10
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse a range or a number of bins that no device answers."""
        check_types(self)
        check_range(self.low, self.high)
        if not 1 <= self.bins <= MOST_BINS:
            raise TaskError(f"{self.bins} bins: 1 to {MOST_BINS} are possible")

    def steps(self) -> Steps:
        """Ask one plan."""
        counted = yield Query(self.field, self.low, self.high, self.bins)
        return {
            "devices": counted.devices, "count": counted.count, "sum": counted.total,
            "mean": counted.total / counted.count, "counts": counted.counts.tolist(),
            "edges": np.linspace(self.low, self.high, self.bins + 1).tolist(),
        }  # fmt: skip
