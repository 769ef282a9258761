# SPDX-License-Identifier: Apache-2.0
"""A query's histogram plans, and what the devices answer."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmote.tasks.base import Result

MOST_BINS = 32


@dataclass(frozen=True, slots=True)
class Query:
    """One plan's histogram: of the field of this name over [low, high) in `bins` bins of equal width."""

    field: str
    low: float
    high: float
    bins: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What the answers to a query come to.

    counts: values in each bin. total: of the values. common: of each bin, whether the least cohort has values in it.
    """

    devices: int
    counts: NDArray[np.float64]
    total: float
    common: NDArray[np.bool_]

    @property
    def count(self) -> float:
        """Values, after the bound on what each device adds."""
        return float(self.counts.sum())


Steps = Generator[Query, Counted, Result]
"""A query's plans, one after the other; each is sent when the one before has been answered."""


def read_answer(body: Any, query: Query, most: int, bound: int) -> tuple[NDArray[np.float64], float] | None:
    """Read an Answer: (counts, sum), scaled down to the bound; None when it makes no sense or holds no value."""
    counts = np.array([body.Counts(i) for i in range(min(body.CountsLength(), MOST_BINS + 1))], np.float64)
    count, total = body.Count(), body.Sum()
    if len(counts) != query.bins or counts.sum() != count or not 1 <= count <= most:
        return None
    slack = 1e-3 * count * max(abs(query.low), abs(query.high))  # the device sums up in float32
    if not count * query.low - slack <= total <= count * query.high + slack:
        return None  # a sum that is no number, too
    scale = min(1.0, bound / count)
    return counts * scale, total * scale
