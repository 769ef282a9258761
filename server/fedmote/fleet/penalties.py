# SPDX-License-Identifier: Apache-2.0
"""Pauses of devices whose work was refused, or that gave nothing: each lasts twice as long as the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LONGEST_S: Final = 3600.0
MOST: Final = 10_000  # devices that are remembered; the one that failed longest ago is forgotten first


class Penalties:
    """The pauses of one federation's devices, by device id. A paused device is not selected.

    first_s: seconds of the first pause; 0: no device is paused. clock: returns the present time in seconds.
    """

    def __init__(self, first_s: float, clock: Callable[[], float]) -> None:
        self.first_s, self.clock = first_s, clock
        self._failures: dict[str, int] = {}  # in a row
        self._until: dict[str, float] = {}

    def note_refused(self, device: str) -> float:
        """Note that a device's work was refused or failed; pause it. Return for how many seconds."""
        return self._fail(device, 1)

    def note_silent(self, device: str) -> float:
        """Note that a device stayed online, had a plan and gave nothing; pause it from the second time in a row on."""
        return self._fail(device, 2)

    def clear(self, device: str) -> None:
        """Note that a device did its work: its failures are forgotten."""
        if self._failures and self._failures.pop(device, 0):
            self._until.pop(device, None)

    def is_paused(self, device: str) -> bool:
        """Tell whether a device is paused."""
        until = self._until.get(device) if self._until else None
        return until is not None and self.clock() < until

    def _fail(self, device: str, pause_from: int) -> float:
        failures = self._failures.pop(device, 0) + 1
        self._failures[device] = failures  # at the end of the dictionary
        if len(self._failures) > MOST:
            oldest = next(iter(self._failures))
            del self._failures[oldest]
            self._until.pop(oldest, None)
        if failures < pause_from:
            return 0.0
        pause = min(LONGEST_S, self.first_s * 2.0 ** min(failures - pause_from, 32))
        self._until[device] = self.clock() + pause
        return pause
