# SPDX-License-Identifier: Apache-2.0
"""When an idle device should come back."""

from __future__ import annotations

from fedmote.fleet.fleet import Fleet
from fedmote.fleet.pace import Arrivals, Pace


class Pacing:
    """Gives each idle device of a fleet a moment of its own to come back."""

    def __init__(self, pace: Pace, fleet: Fleet) -> None:
        self.pace, self.fleet = pace, fleet
        self.arrivals = Arrivals(pace.arrivals_per_s)

    def come_back_s(self, device: str, wanted_at: float) -> float:
        """Return for how many seconds an idle device may stay away. wanted_at: when a ready device is wanted."""
        now, ready = self.fleet.now, self.fleet.sessions.is_ready(device)
        if not ready:
            wanted_at = max(wanted_at, now + self.pace.ineligible_s)
        if wanted_at <= now:
            return 0.0
        come_back_at = self.fleet.sessions[device].come_back_at
        if come_back_at[ready] <= now:  # a device that repeats its Hello keeps its place, and takes no other device's
            come_back_at[ready] = now + self.arrivals.come_back_s(now, wanted_at)
        return come_back_at[ready] - now
