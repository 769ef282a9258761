# SPDX-License-Identifier: Apache-2.0
"""Queries: what a plan asks of a device, and how the answers are added up.

A device answers one kind of question: a histogram of a field over a range. Quantiles and heavy hitters refine it on the
server, range by range: the hierarchical histograms of Cormode, Kulkarni and Srivastava 2019 ("Answering Range Queries
Under Local Differential Privacy", VLDB 12(10)). That only branches with enough support are followed is TrieHH's idea
(Zhu et al. 2020, "Federated Heavy Hitters Discovery with Differential Privacy", AISTATS).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmote.tasks.base import Result
from fedmote.wire.Answer import Answer

MOST_BINS = 32


@dataclass(frozen=True, slots=True)
class Query:
    """One plan: a histogram of the named field over [low, high), in `bins` bins of equal width."""

    field: str
    low: float
    high: float
    bins: int


@dataclass(frozen=True, slots=True)
class Counted:
    """The answers to a plan, added up.

    devices: how many answered. counts: number of values in each bin. total: sum of the values. common: for each bin,
    whether at least the minimum cohort has values in it.
    """

    devices: int
    counts: NDArray[np.float64]
    total: float
    common: NDArray[np.bool_]

    @property
    def count(self) -> float:
        """Number of values, after the bound on what each device adds."""
        return float(self.counts.sum())


Steps = Generator[Query, Counted, Result]
"""A query's plans, one after the other. The next one is sent when the one before has been answered."""


def read_answer(answer: Answer, query: Query, bound: int) -> tuple[NDArray[np.float64], float] | str:
    """Return an answer's (counts, sum), scaled down to `bound` values, or why it is refused."""
    counts = np.array([answer.Counts(i) for i in range(min(answer.CountsLength(), MOST_BINS + 1))], np.float64)
    count, total = answer.Count(), answer.Sum()
    if count == 0:
        return "no values"
    if len(counts) != query.bins or counts.sum() != count:
        return "counts do not match each other"
    slack = 1e-3 * count * max(abs(query.low), abs(query.high))  # the device adds in float32
    if not count * query.low - slack <= total <= count * query.high + slack:
        return "sum out of range"  # also when it is NaN
    scale = min(1.0, bound / count)
    return counts * scale, total * scale
