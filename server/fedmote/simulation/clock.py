# SPDX-License-Identifier: Apache-2.0
"""The virtual clock: what happens when, on one queue. Nothing waits, so a day lasts as long as its events take."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any


class Clock:
    """Time in seconds since the start, and what is to happen.

    What is due at the same time happens in the order in which it was asked for: a run depends on nothing else.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0  # that have happened
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._asked = 0
        self._stopped = False

    def at(self, time: float, call: Callable[..., None], *args: Any) -> None:
        """Have `call(*args)` happen at `time`, or now when that is past."""
        if not time < math.inf:
            raise ValueError(f"an event at {time} would never happen")
        self._asked += 1
        heapq.heappush(self._queue, (max(time, self.now), self._asked, call, args))

    def stop(self) -> None:
        """End the present run once the event that asks for this is over."""
        self._stopped = True

    def run(self, until: float) -> None:
        """Let everything happen that is due by `until`, which it is then."""
        queue = self._queue
        self._stopped = False
        while queue and queue[0][0] <= until:
            self.now, _, call, args = heapq.heappop(queue)
            self.events += 1
            call(*args)
            if self._stopped:
                return
        self.now = max(self.now, until)
