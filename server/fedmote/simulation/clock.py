# SPDX-License-Identifier: Apache-2.0
"""The virtual clock: one queue of events. It never waits, so a day takes as long as its events take to compute."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any


class Clock:
    """Time in seconds since the start, and the scheduled events.

    Events at the same time happen in the order of scheduling, so a run is deterministic.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0  # processed so far
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0
        self._stopped = False

    def call_at(self, time: float, call: Callable[..., None], *args: Any) -> None:
        """Schedule `call(*args)` at `time`, or now when that is past."""
        if not time < math.inf:
            raise ValueError(f"an event at {time} would never happen")
        self._scheduled += 1
        heapq.heappush(self._queue, (max(time, self.now), self._scheduled, call, args))

    def stop(self) -> None:
        """End run() after the current event."""
        self._stopped = True

    def run(self, until: float) -> None:
        """Process all events up to the time `until`, and set the clock to it."""
        queue = self._queue
        self._stopped = False
        while queue and queue[0][0] <= until:
            self.now, _, call, args = heapq.heappop(queue)
            self.events += 1
            call(*args)
            if self._stopped:
                return
        self.now = max(self.now, until)
