# SPDX-License-Identifier: Apache-2.0
"""Quantiles of a field over the fleet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmote.errors import TaskError
from fedmote.model.layout import ROUNDING
from fedmote.tasks.base import check_range, check_types
from fedmote.tasks.query import MOST_BINS, Query, Steps


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of a field, each to `tolerance`; one outside [low, high) is told as the range's end."""

    field: str
    low: float
    high: float
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    tolerance: float = 0.0  # 0: a thousandth of the range
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be found."""
        check_types(self)
        check_range(self.low, self.high)
        if not self.shares or not all(0 < share < 1 for share in self.shares) or len(self.shares) > 20:
            raise TaskError(f"shares {self.shares}: 1 to 20 numbers between 0 and 1")
        # Below, float32 on the device does not tell values apart: neither parts of the range nor numbers of this size.
        apart = float(np.spacing(np.float32(max(abs(self.low), abs(self.high)))))
        least = max(1e-5 * (self.high - self.low), 2 * apart)
        if not self._within >= least:
            raise TaskError(f"tolerance {self._within:g}: at least {least:g} for numbers of this size")

    @property
    def _within(self) -> float:
        return self.tolerance or (self.high - self.low) / 1000

    def steps(self) -> Steps:
        """Find one quantile after the other, each time in the bin that it fell into."""
        tolerance = self._within
        found: list[float] = []
        for share in self.shares:
            low, high = self.low, self.high
            while True:
                # The outer bins count what lies below and above, so that each answer stands for itself.
                inner = MOST_BINS - 2
                width = (high - low) / inner
                counted = yield Query(self.field, low - width, high + width, MOST_BINS)
                edges = low + width * np.arange(-1, inner + 1)
                wanted = share * counted.count - ROUNDING
                place = int(np.searchsorted(np.cumsum(counted.counts), wanted, side="left"))
                if place in (0, MOST_BINS - 1):  # outside: at once at the end, or by a value that moved meanwhile
                    found.append(low if place == 0 else high)
                    break
                low, high = float(edges[place]), float(edges[place]) + width
                if width <= tolerance:
                    found.append(low + width / 2)
                    break
        return {"devices": counted.devices, "quantiles": dict(zip(map(str, self.shares), found, strict=True))}
