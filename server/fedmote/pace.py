# SPDX-License-Identifier: Apache-2.0
"""When: deadlines that follow the fleet's speed, and when a device is to come back. No I/O, and no clock of its own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

WINDOW: Final = 256  # report times that count
SPREADS: Final = 3.0  # standard deviations above the median, of a normal distribution as wide as the middle of this one
MAD_TO_SIGMA: Final = 1.4826
GROWS: Final = 1.5  # factor after a round in which fewer than the goal were done
SHRINKS: Final = 0.9  # least factor after another one
MOST_AWAY_S: Final = 86_400.0  # longest that a device is sent away for


class Deadline(NamedTuple):
    """Seconds since the plan: of the closing notice, and of the end."""

    soft_s: float
    hard_s: float


class Deadlines:
    """The deadline of one group of devices, which follows how long they take.

    bounds: the longest, which is also the first; soft and hard keep its ratio. least_s: the shortest soft one. goal:
    share of the asked that should be done by the soft deadline.

    The soft deadline is the median of the recent report times and three spreads (the median absolute deviation, brought
    to sigma). Who was not done counts as at least the deadline, so the median is right while more than half are. When
    fewer than the goal were done, those times say too little, and the deadline grows whatever they say; it shrinks by a
    tenth a round at most. So a few quick rounds cannot make it collapse, and one that has become too short recovers.
    """

    def __init__(self, bounds: Deadline, least_s: float, goal: float) -> None:
        self._bounds, self._least_s, self._goal = bounds, min(least_s, bounds.soft_s), goal
        self._soft_s = bounds.soft_s
        self._times: deque[float] = deque(maxlen=WINDOW)

    @property
    def present(self) -> Deadline:
        """The deadline of the next plan."""
        if self._soft_s == self._bounds.soft_s:
            return self._bounds
        return Deadline(self._soft_s, self._soft_s * self._bounds.hard_s / self._bounds.soft_s)

    def learn(self, done: Iterable[float], not_done: Iterable[float]) -> None:
        """Take in a round: the seconds of those who were done, and how long the others were waited for in vain."""
        reported = list(done)
        waited = [max(seconds, self._soft_s) for seconds in not_done]
        if not reported and not waited:
            return
        self._times.extend(reported)
        self._times.extend(waited)
        if len(reported) < self._goal * (len(reported) + len(waited)):
            soft_s = GROWS * self._soft_s
        else:
            soft_s = max(self._wanted(), SHRINKS * self._soft_s)
        self._soft_s = min(max(soft_s, self._least_s), self._bounds.soft_s)

    def _wanted(self) -> float:
        times = np.array(self._times)
        median = float(np.median(times))
        return median + SPREADS * MAD_TO_SIGMA * float(np.median(np.abs(times - median)))


@dataclass(frozen=True, slots=True)
class Pace:
    """When devices are to come: [pace] of federation.toml.

    arrivals_per_s: that the server's links and broker bear. meet_s: while too few are there for a round, devices are
    asked to meet at multiples of this many seconds. ineligible_s: shortest absence of a device that may not be asked as
    it is.
    """

    arrivals_per_s: float = 100.0
    meet_s: float = 60.0
    ineligible_s: float = 900.0


class Arrivals:
    """Sends each device away until a moment of its own, so that few come at a time however many there are.

    Pace steering (Bonawitz et al. 2019, section 2.3) with one number of state instead of an estimate of the fleet: the
    moments are handed out one after the other, from the one at which devices are wanted. Ten devices so come together,
    as a hundredth of a second a device is nothing, and a million comes over hours, evenly.

    Clocks that run wrong and links that take their time make of even distances those of chance, a Poisson process. Its
    rate is aimed six standard deviations below what is borne: in one second of a million or fewer more will come.
    """

    def __init__(self, arrivals_per_s: float) -> None:
        rate = (math.sqrt(arrivals_per_s + 9.0) - 3.0) ** 2  # rate + 6 sqrt(rate) = arrivals_per_s
        self._apart_s = 1.0 / rate
        self._free_at = -math.inf

    def come_back_s(self, now: float, wanted_at: float) -> float:
        """Return in how many seconds a device is to come back that is wanted from `wanted_at` on."""
        at = max(now, wanted_at, self._free_at)
        if at >= now + MOST_AWAY_S:  # a day holds no more: the next one begins anew
            self._free_at = at = max(now, min(wanted_at, now + MOST_AWAY_S))
        self._free_at = at + self._apart_s
        return at - now


def next_meeting(now: float, meet_s: float) -> float:
    """Return when devices meet next that found too few others."""
    return (math.floor(now / meet_s) + 1) * meet_s
