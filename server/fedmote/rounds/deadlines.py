# SPDX-License-Identifier: Apache-2.0
"""Deadlines that follow the fleet's speed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

WINDOW: Final = 20  # number of rounds whose report times count
SPREADS: Final = 3.0  # the soft deadline is so many standard deviations above the median
MAD_TO_SIGMA: Final = 1.4826  # median absolute deviation to standard deviation, of a normal distribution
GROWS: Final = 1.5  # factor after a round in which fewer devices than the goal were done
SHRINKS: Final = 0.8  # smallest factor after any other round


class Deadline(NamedTuple):
    """Seconds from the plan to the closing notice (soft) and to the end of the round (hard)."""

    soft_s: float
    hard_s: float


class Deadlines:
    """The deadline of one group of devices; it follows how long they take.

    bounds: the longest deadline, which is also the first; soft and hard keep its ratio. least_s: the shortest soft
    deadline. goal: share of the selected devices that should be done by the soft deadline.

    The soft deadline is the median of the recent report times plus three standard deviations, estimated from the median
    absolute deviation. A device that was not done counts as slower than all that were. Median and deviation are right
    while at least half of the devices are done. When fewer devices than the goal were done, their times say too little
    and the deadline grows. It shrinks by at most a fifth a round. So a few quick rounds cannot make it collapse, and a
    deadline that has become too short recovers. With a goal below a half it stays the longest one, because such rounds
    end before a median is known.
    """

    def __init__(self, bounds: Deadline, least_s: float, goal: float) -> None:
        self._bounds, self._least_s, self._goal = bounds, min(least_s, bounds.soft_s), goal
        self._soft_s = bounds.soft_s
        self._rounds: deque[list[float]] = deque(maxlen=WINDOW)  # seconds of each selected device; infinite: not done

    @property
    def present(self) -> Deadline:
        """The deadline of the next plan."""
        if self._soft_s == self._bounds.soft_s:
            return self._bounds
        return Deadline(self._soft_s, self._soft_s * self._bounds.hard_s / self._bounds.soft_s)

    def learn(self, done: Sequence[float], not_done: int) -> None:
        """Learn from a round: the seconds of the devices that were done in time, and how many were not."""
        if not done and not not_done:
            return
        self._rounds.append([*done, *[math.inf] * not_done])
        if len(done) < self._goal * (len(done) + not_done):
            soft_s = GROWS * self._soft_s
        else:
            soft_s = max(self._wanted(), SHRINKS * self._soft_s)
        self._soft_s = min(max(soft_s, self._least_s), self._bounds.soft_s)

    def _wanted(self) -> float:
        times = np.concatenate(self._rounds)
        median = np.quantile(times, 0.5, method="lower")
        if np.isinf(median):
            return math.inf
        spread = np.quantile(np.abs(times - median), 0.5, method="lower")
        return float(median + SPREADS * MAD_TO_SIGMA * spread)
