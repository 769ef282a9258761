# SPDX-License-Identifier: Apache-2.0
"""Frequent values of a field over the fleet."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from fedmote.errors import TaskError
from fedmote.model.layout import ROUNDING
from fedmote.tasks.base import check_types
from fedmote.tasks.query import MOST_BINS, Query, Steps

LARGEST_CODE = 1 << 22  # halves between whole numbers up to it are exact in float32


@dataclass(frozen=True, slots=True)
class HeavyHitters:
    """Whole numbers in [low, high] that make up at least `share` of a field's values, and that a least cohort has."""

    field: str
    low: int
    high: int
    share: float = 0.1
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be found."""
        check_types(self)
        if not -LARGEST_CODE <= self.low < self.high <= LARGEST_CODE:
            raise TaskError(f"codes {self.low} to {self.high}: ascending, of at most {LARGEST_CODE}")
        if not 0.02 <= self.share <= 1:
            raise TaskError(f"share {self.share}: between 0.02 and 1")

    def steps(self) -> Steps:
        """Follow the bins that hold enough, down to single codes."""
        hitters: dict[str, float] = {}
        ranges = deque([(self.low, self.high + 1)])
        while ranges:
            low, high = ranges.popleft()
            width = -(-(high - low) // (MOST_BINS - 2))
            inner = -(-(high - low) // width)
            # Between whole numbers, so that rounding moves none into another bin; the outer bins count all others.
            start = low - width - 0.5
            counted = yield Query(self.field, start, start + (inner + 2) * width, inner + 2)
            least = self.share * counted.count - ROUNDING
            enough = counted.common & (counted.counts >= least)  # what few hold is not told, nor looked into
            for i in np.flatnonzero(enough[1:-1]).tolist():
                at, count = low + i * width, float(counted.counts[1 + i])
                if width == 1:
                    hitters[str(at)] = count / counted.count
                else:
                    ranges.append((at, min(at + width, high)))
        return {"devices": counted.devices, "codes": dict(sorted(hitters.items(), key=lambda item: -item[1]))}
