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
    """Find whole numbers in [low, high] that make up at least `share` of a field's values.

    A number counts only if at least the minimum cohort of devices has it.
    """

    field: str
    low: int
    high: int
    share: float = 0.1
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse codes or a share that no query can find."""
        check_types(self)
        if not -LARGEST_CODE <= self.low < self.high <= LARGEST_CODE:
            raise TaskError(f"codes {self.low} to {self.high}: they must ascend and be at most {LARGEST_CODE}")
        if not 0.02 <= self.share <= 1:
            raise TaskError(f"share {self.share}: it must be between 0.02 and 1")

    def steps(self) -> Steps:
        """Follow the bins that hold enough values, down to single codes."""
        hitters: dict[str, float] = {}
        ranges = deque([(self.low, self.high + 1)])
        while ranges:
            low, high = ranges.popleft()
            width = -(-(high - low) // (MOST_BINS - 2))
            inner = -(-(high - low) // width)
            # Edges lie between whole numbers, so that rounding moves no value into another bin. The two outer bins
            # count all values outside the range.
            start = low - width - 0.5
            counted = yield Query(self.field, start, start + (inner + 2) * width, inner + 2)
            least = self.share * counted.count - ROUNDING
            frequent = counted.common & (
                counted.counts >= least
            )  # a bin that few devices fill is neither told nor split
            for i in np.flatnonzero(frequent[1:-1]).tolist():
                at, count = low + i * width, float(counted.counts[1 + i])
                if width == 1:
                    hitters[str(at)] = count / counted.count
                else:
                    ranges.append((at, min(at + width, high)))
        return {"devices": counted.devices, "codes": dict(sorted(hitters.items(), key=lambda item: -item[1]))}
