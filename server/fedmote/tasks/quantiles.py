# SPDX-License-Identifier: Apache-2.0
"""Quantiles of a field over the fleet."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from fedmote.errors import TaskError
from fedmote.model.layout import ROUNDING
from fedmote.tasks.base import check_range, check_types
from fedmote.tasks.query import MOST_BINS, Counted, Query, Steps


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Find quantiles of a field, each to `tolerance`; for one outside [low, high) the result is the end of the range.

    shares: 0.5 is the median. tolerance: 0: a thousandth of the range.
    """

    field: str
    low: float
    high: float
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)
    tolerance: float = 0.0
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse a range, shares or a tolerance that no query can find."""
        check_types(self)
        check_range(self.low, self.high)
        if not self.shares or not all(0 < share < 1 for share in self.shares) or len(self.shares) > 20:
            raise TaskError(f"shares {self.shares}: they must be 1 to 20 numbers between 0 and 1")
        # A device computes in float32, which cannot tell closer values apart, in the range or of this size.
        apart = float(np.spacing(np.float32(max(abs(self.low), abs(self.high)))))
        least = max(1e-5 * (self.high - self.low), 2 * apart)
        if not self._within >= least:
            raise TaskError(f"tolerance {self._within:g}: it must be at least {least:g} for numbers of this size")

    @property
    def _within(self) -> float:
        return self.tolerance or (self.high - self.low) / 1000

    def steps(self) -> Steps:
        """Find one quantile after the other."""
        found: list[float] = []
        for share in self.shares:
            devices, value = yield from self._find(share)
            found.append(value)
        return {"devices": devices, "quantiles": dict(zip(map(str, self.shares), found, strict=True))}

    def _find(self, share: float) -> Generator[Query, Counted, tuple[int, float]]:
        """Find a quantile: each plan splits the bin that the quantile fell into before."""
        low, high, inner = self.low, self.high, MOST_BINS - 2
        while True:
            width = (high - low) / inner
            # The two outer bins count what lies below and above, so that each answer can be read by itself.
            counted = yield Query(self.field, low - width, high + width, MOST_BINS)
            edges = low + width * np.arange(-1, inner + 1)
            wanted = share * counted.count - ROUNDING
            place = int(np.searchsorted(np.cumsum(counted.counts), wanted, side="left"))
            if place in (0, MOST_BINS - 1):  # outside the range, or a value moved since the plan before
                return counted.devices, low if place == 0 else high
            low, high = float(edges[place]), float(edges[place]) + width
            if width <= self._within:
                return counted.devices, low + width / 2
