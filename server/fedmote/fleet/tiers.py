# SPDX-License-Identifier: Apache-2.0
"""Tiers: groups of devices of like speed."""

from __future__ import annotations

from typing import Final

import numpy as np

from fedmote.fleet.sampling import Indices, Numbers


class Tiers:
    """Groups of devices of like speed; each round selects devices of one group: TiFL (Chai et al., HPDC 2020).

    Group 0 has the devices of unknown speed. It comes first as soon as it fills a round; fewer devices than that are
    selected together with the slowest group, whose deadline is the longest. The other groups, 1 (fastest) to `count`,
    are equally large. Each group earns its share of credit in each round, and the group with the most credit pays for
    the round. So no group falls behind its share by more than `count` rounds, however slow it is.
    """

    PROFILING: Final = 0

    def __init__(self, count: int) -> None:
        self.credit = np.zeros(count)

    def pick(self, seconds: Numbers, wanted: int) -> tuple[int, Indices]:
        """Return the group whose turn it is and its members. seconds: each candidate's time, NaN: unknown."""
        unknown = np.flatnonzero(np.isnan(seconds))
        known = np.flatnonzero(~np.isnan(seconds))
        if unknown.size >= wanted or known.size == 0:
            return self.PROFILING, unknown
        groups = np.array_split(known[np.argsort(seconds[known], kind="stable")], self.credit.size)
        sizes = np.array([group.size for group in groups])
        self.credit += sizes / known.size
        turn = int(np.argmax(np.where(sizes > 0, self.credit, -np.inf)))
        self.credit[turn] -= 1.0
        slowest = int(np.flatnonzero(sizes)[-1])
        members = np.concatenate([groups[turn], unknown]) if turn == slowest else groups[turn]
        return turn + 1, np.sort(members)
