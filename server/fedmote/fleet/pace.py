# SPDX-License-Identifier: Apache-2.0
"""Pace steering: when devices should come back, so that few connect at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

MOST_AWAY_S: Final = 86_400.0  # longest absence that the server asks of a device
GOLDEN: Final = (math.sqrt(5) - 1) / 2  # its multiples, modulo 1, are spread evenly however many there are


@dataclass(frozen=True, slots=True)
class Pace:
    """When devices should connect: [pace] of federation.toml.

    arrivals_per_s: how many connections a second the server's links and broker can take. meet_s: while too few devices
    are online for a round, devices are told to meet at multiples of this many seconds. ineligible_s: shortest absence
    of a device that may not be selected in its present state.
    """

    arrivals_per_s: float = 100.0
    meet_s: float = 60.0
    ineligible_s: float = 900.0


class Arrivals:
    """Gives each device a moment of its own to come back, so that few come at a time however large the fleet is.

    This is pace steering (Bonawitz et al. 2019, section 2.3), with a count for each second instead of an estimate of
    the fleet's size. A device gets a place in the first second that is not full, from the second on in which it is
    wanted. So ten devices come together, and a million devices come evenly over hours. A server that restarts does not
    know the places that it gave.

    Inexact clocks and slow links turn even distances into random ones, a Poisson process. Its rate is set six standard
    deviations below arrivals_per_s. From 50 arrivals a second on, one second in ten million brings more than that; at
    10 it is one in 250,000, at 1 one in 3,000.
    """

    def __init__(self, arrivals_per_s: float) -> None:
        rate = (math.sqrt(arrivals_per_s + 9.0) - 3.0) ** 2  # rate + 6 sqrt(rate) = arrivals_per_s
        self._slice_s = math.ceil(1.0 / rate) if rate < 1.0 else 1
        self._places = max(1, int(rate))  # in each slice of time
        self._taken: dict[int, int] = {}  # places of slices
        self._behind: dict[int, int] = {}  # full slice -> a later one, before which all are full
        self._overflow = 0.0

    def come_back_s(self, now: float, wanted_at: float) -> float:
        """Return in how many seconds a device should come back, at most a day. wanted_at: from when on it is wanted."""
        wanted_at = min(max(now, wanted_at), now + MOST_AWAY_S)
        place = self._free(math.ceil(wanted_at / self._slice_s))
        taken = self._taken.get(place, 0)
        at = (place + taken / self._places) * self._slice_s
        if at > now + MOST_AWAY_S:  # the day is full: spread the rest evenly over it
            self._overflow = (self._overflow + GOLDEN) % 1.0
            return wanted_at - now + self._overflow * (now + MOST_AWAY_S - wanted_at)
        self._taken[place] = taken + 1
        if taken + 1 == self._places:
            self._behind[place] = place + 1
        if len(self._taken) > 2 * MOST_AWAY_S / self._slice_s:
            self._forget(math.floor(now / self._slice_s))
        return at - now

    def _free(self, place: int) -> int:
        """Return the first slice from this one on that is not full, and shorten the way there for the next search."""
        passed = []
        while place in self._behind:
            passed.append(place)
            place = self._behind[place]
        self._behind.update(dict.fromkeys(passed, place))
        return place

    def _forget(self, present: int) -> None:
        self._taken = {place: taken for place, taken in self._taken.items() if place >= present}
        self._behind = {place: behind for place, behind in self._behind.items() if place >= present}


def next_meeting(now: float, meet_s: float) -> float:
    """Return when the devices meet next, while too few are online for a round."""
    return (math.floor(now / meet_s) + 1) * meet_s
